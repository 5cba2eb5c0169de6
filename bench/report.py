"""What the report costs: seconds and megabytes, how soon the page is there, and how long the app takes to save.

    python -m bench.report --data ../shared/data/msrc14/JPEGImages --k 14
    python -m bench.report --data ../shared/data/msrc14/JPEGImages --k 14 --objects 100000

Embeds and clusters the images with the preset offline unless --run holds that already, then writes the report anew.
`--objects` repeats the images until they are so many, and gives each a box and a planted embedding.
Where chromium and selenium are here, the page is opened as well: the seconds until it is loaded, and until the map is
drawn. Where uvicorn is, `fastcomus view` serves the run: the seconds that a request takes which moves five objects to
another cluster, and one that names a cluster, the median of several each; these corrections stay in the run.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench import harness
from fastcomus.images.folder import find_images
from fastcomus.run.run import Run

_WIDTH = 384  # of planted embeddings
_SAVES = 7


def main() -> None:
    parser = harness.make_parser(__doc__, "report", data=None)
    parser.add_argument("--k", type=int, default=14, help="clusters")
    parser.add_argument("--objects", type=int, default=0, help="repeat the images until they are so many; 0 does not")
    parser.add_argument("--run", type=Path, default=Path("report-run"), help="folder for images and run")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    images, folder, own = arguments.data, arguments.run / "run", {}
    if arguments.objects:
        images = repeat_images(images, arguments.objects, arguments.run / "images")
        own = {"masks": str(write_objects(images, arguments.k, arguments.run / "objects.parquet"))}
    run = Run(folder, preset="offline", settings={"cluster": {"k": arguments.k}})
    embedded = run.embed(images, **own)
    run.cluster()
    shutil.rmtree(folder / "report", ignore_errors=True)
    times = harness.time_once(run.report)
    files = [file for file in times.result.parent.rglob("*") if file.is_file()]
    numbers = {"images": embedded.images, "objects": embedded.objects, "s to write": times.median_s}
    numbers |= {"files": len(files), "MB": sum(file.stat().st_size for file in files) / 1e6}
    numbers |= time_opening(times.result) | time_saving(run)
    harness.finish(arguments, "Report", numbers)


def time_opening(page: Path) -> dict[str, float]:
    """Seconds until the page is loaded and until the map is drawn; nothing where there is no browser."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return {}
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(page.resolve().as_uri())
        loaded = "return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
        numbers = {"s until loaded": driver.execute_script(loaded)}
        driver.execute_script("document.getElementById('map').scrollIntoView()")
        drawn = "return document.getElementById('map').dataset.drawn === 'done' && performance.now() / 1000"
        wait = WebDriverWait(driver, 60, 0.02)
        return numbers | {"s until the map is drawn": wait.until(lambda one: one.execute_script(drawn))}
    finally:
        driver.quit()


def time_saving(run: Run) -> dict[str, float]:
    """Seconds that the app takes to move objects and to name a cluster; nothing where no server is installed."""
    if not importlib.util.find_spec("uvicorn"):
        return {}
    from fastcomus.cli.view.server import prepare_view

    view = prepare_view(run, 0, ["--run", str(run.folder.path)])
    serving = threading.Thread(target=view.serve)
    serving.start()
    wanted = {
        "s to move": [{"do": "move", "objects": list(range(i, i + 5)), "to": i % 2} for i in range(_SAVES)],
        "s to name": [{"do": "name", "names": {"0": f"name {i}"}} for i in range(_SAVES)],
    }
    clusters = (run.folder.read_manifest("clusters") or {})["fingerprint"]
    try:
        return {
            key: float(np.median([_time_save(view.address, {"clusters": clusters, **one}) for one in saves]))
            for key, saves in wanted.items()
        }
    finally:
        view.server.should_exit = True
        serving.join()


def _time_save(address: str, wanted: dict[str, object]) -> float:
    page = urlsplit(address)
    sent = {"Origin": f"http://{page.netloc}", "Content-Type": "application/json"}
    request = Request(f"{address}api/save", json.dumps(wanted).encode(), sent)
    started = time.perf_counter()
    with urlopen(request) as reply:
        reply.read()
    return time.perf_counter() - started


def repeat_images(images: Path, count: int, folder: Path) -> Path:
    """Make `count` files in `folder`: a copy of each image, then one hard link after the other to these."""
    folder.mkdir(parents=True, exist_ok=True)
    found = find_images(images)
    for index in range(count):
        file, round_ = folder / f"{index:06d}.jpg", index // len(found.names)
        if round_ and not file.exists():
            file.hardlink_to(folder / f"{index % len(found.names):06d}.jpg")
        elif not file.exists():
            shutil.copyfile(found.root / found.names[index], file)
    return folder


def write_objects(images: Path, k: int, file: Path) -> Path:
    """Write a box in the middle of each image, with an embedding of one of `k` planted kinds."""
    random = np.random.default_rng(0)
    kinds = random.normal(size=(k, _WIDTH)).astype(np.float32)
    rows = []
    for index, image in enumerate(sorted(images.iterdir())):
        with Image.open(image) as picture:
            width, height = picture.size
        box = {"x0": width // 4, "y0": height // 4, "x1": 3 * width // 4, "y1": 3 * height // 4}
        embedding = kinds[index % k] + random.normal(size=_WIDTH).astype(np.float32)
        rows.append({"image": image.name, **box, "embedding": embedding})
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


if __name__ == "__main__":
    main()
