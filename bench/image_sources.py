"""Images per second, read and decoded, from a folder, from tars, and from a web server on this machine.

    python -m bench.image_sources --data DIR

Every source gives the same images, by the same number of threads; that their pixels are equal is checked first. The web
server is a process of its own and shares the processor with the reading.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from bench import harness
from fastcomus.backends.read_ahead import read_ahead
from fastcomus.images.folder import find_images
from fastcomus.images.found import ImageList
from fastcomus.images.listing import find_listed_images
from fastcomus.images.reading import read_image

MAX_PIXELS = 100_000_000
PER_TAR = 100
# HTTP/1.1 uses connections again; the first line that it prints names the port.
SERVER = "-u -m http.server 0 --bind 127.0.0.1 --protocol HTTP/1.1 --directory"


def main() -> None:
    parser = harness.make_parser(__doc__, "image_sources", data=None, count=494, workers=2, repeats=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        names = find_images(arguments.data).names[: arguments.count]
        plain, tars = Path(scratch, "plain"), Path(scratch, "tars")
        lay_out(arguments.data, names, plain, tars)
        line = [sys.executable, *SERVER.split(), str(plain)]
        server = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert server.stdout
        port = server.stdout.readline().partition(" port ")[2].split()[0]
        given = {"folder": str(plain), "tars": str(tars), "http": f"http://127.0.0.1:{port}"}
        listed = {name: harness.time_once(find_listed_images, address) for name, address in given.items()}
        sources = {name: times.result for name, times in listed.items()}
        check_equal(sources)
        sides = {name: functools.partial(read_all, source, arguments.workers) for name, source in sources.items()}
        times = harness.time_sides(sides, arguments.repeats)
        server.terminate()
    rates = {name: harness.summarise(len(names) / wall for wall in one.wall_s) for name, one in times.items()}
    numbers = {
        "images": len(names),
        "workers": arguments.workers,
        "images_per_s": {name: round(rate["median"], 1) for name, rate in rates.items()},
        "spread": {name: [round(rate["least"], 1), round(rate["most"], 1)] for name, rate in rates.items()},
        "listing_s": {name: round(one.median_s, 3) for name, one in listed.items()},
    }
    rows = [{"source": name, "listing_s": listed[name].median_s, **rate} for name, rate in rates.items()]
    harness.finish(arguments, "Images read and decoded a second", numbers, shown=rows)


def lay_out(images: Path, names: tuple[str, ...], plain: Path, tars: Path) -> None:
    plain.mkdir()
    tars.mkdir()
    for start in range(0, len(names), PER_TAR):
        with tarfile.open(tars / f"{start:06d}.tar", "w") as tar:
            for number, name in enumerate(names[start : start + PER_TAR], start):
                place = f"{number:06d}{Path(name).suffix}"
                tar.add(images / name, place)
                (plain / place).write_bytes((images / name).read_bytes())


def check_equal(sources: dict[str, ImageList]) -> None:
    assert len({len(source.names) for source in sources.values()}) == 1
    for place in range(0, len(sources["folder"].names), 50):
        pixels = [read_image(source.root / source.names[place], MAX_PIXELS) for source in sources.values()]
        assert all(np.array_equal(pixels[0], other) for other in pixels[1:])


def read_all(source: ImageList, workers: int) -> None:
    for _ in read_ahead(lambda name: read_image(source.root / name, MAX_PIXELS), source.names, workers):
        pass


if __name__ == "__main__":
    main()
