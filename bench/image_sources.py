"""Images per second, read and decoded, from a folder, from tars, and from a web server on this machine.

    python bench/image_sources.py --images DIR

Every source gives the same images, by the same number of threads; that their pixels are equal is checked first. The web
server is a process of its own and shares the processor with the reading.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import multiprocessing
import platform
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.images.folder import find_images
from fastcomus.images.found import ImageList
from fastcomus.images.listing import find_listed_images
from fastcomus.images.reading import read_image

MAX_PIXELS = 100_000_000
PER_TAR = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--count", type=int, default=494, help="images that are read")
    parser.add_argument("--threads", type=int, default=2, help="threads that read")
    parser.add_argument("--repeats", type=int, default=3, help="passes; the median counts")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results/image_sources.json")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        names = find_images(options.images).names[: options.count]
        plain, tars = Path(scratch, "plain"), Path(scratch, "tars")
        _lay_out(options.images, names, plain, tars)
        ready = multiprocessing.Queue()
        server = multiprocessing.Process(target=_serve, args=(plain, ready), daemon=True)
        server.start()
        given = {"folder": str(plain), "tars": str(tars), "http": f"http://127.0.0.1:{ready.get()}"}
        sources, listing_s = {}, {}
        for name, address in given.items():
            started = time.perf_counter()
            sources[name] = find_listed_images(address)
            listing_s[name] = time.perf_counter() - started
        _check_equal(sources)
        rates: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(options.repeats):  # in turns, so that other load meets all of them
            for name, source in sources.items():
                rates[name].append(_measure_images_per_s(source, options.threads))
        server.terminate()

    numbers = {
        "images": len(names),
        "threads": options.threads,
        "machine": platform.processor() or platform.machine(),
        "images_per_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "spread": {name: [round(min(values), 1), round(max(values), 1)] for name, values in rates.items()},
        "listing_s": {name: round(value, 3) for name, value in listing_s.items()},
    }
    for name in sources:
        low, high = numbers["spread"][name]
        print(
            f"{name:8} {numbers['images_per_s'][name]:8} images/s ({low} to {high}), found in {listing_s[name]:.3f} s"
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(numbers, indent=2) + "\n")


def _lay_out(images: Path, names: tuple[str, ...], plain: Path, tars: Path) -> None:
    plain.mkdir()
    tars.mkdir()
    for start in range(0, len(names), PER_TAR):
        with tarfile.open(tars / f"{start:06d}.tar", "w") as tar:
            for number, name in enumerate(names[start : start + PER_TAR], start):
                place = f"{number:06d}{Path(name).suffix}"
                tar.add(images / name, place)
                (plain / place).write_bytes((images / name).read_bytes())


def _serve(folder: Path, ready: multiprocessing.Queue) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are used again

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        ready.put(server.server_address[1])
        server.serve_forever()


def _check_equal(sources: dict[str, ImageList]) -> None:
    for place in range(0, len(sources["folder"].names), 50):
        pixels = [read_image(source.root / source.names[place], MAX_PIXELS) for source in sources.values()]
        assert all(np.array_equal(pixels[0], other) for other in pixels[1:])
    assert len({len(source.names) for source in sources.values()}) == 1


def _measure_images_per_s(source: ImageList, threads: int) -> float:
    started = time.perf_counter()
    for _ in read_ahead(lambda name: read_image(source.root / name, MAX_PIXELS), source.names, threads):
        pass
    return len(source.names) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
