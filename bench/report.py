"""What the report costs: seconds and megabytes, and how soon the page is there.

    python bench/report.py --images ../shared/data/msrc14/JPEGImages --k 14
    python bench/report.py --images ../shared/data/msrc14/JPEGImages --k 14 --objects 10000

Embeds and clusters the images with the preset offline unless --run holds that already, then writes the report anew.
`--objects` repeats the images, slightly cropped, until they give so many. Where chromium and selenium are here, the
page is opened as well: the seconds until it is loaded, and until the map is drawn.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from fastcomus.images.folder import find_images
from fastcomus.run.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--k", type=int, default=14, help="clusters")
    parser.add_argument("--objects", type=int, default=0, help="repeat the images until they are so many; 0 does not")
    parser.add_argument("--run", type=Path, default=Path("report-run"), help="folder for images and run")
    parser.add_argument("--json", type=Path, default=Path("bench/results/report.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    images = arguments.images
    if arguments.objects:
        images = write_repeated_images(images, arguments.objects, arguments.run / "images")
    numbers = measure(images, arguments.k, arguments.run / "run")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    table = Table("", "", show_header=False, title="Report")
    for name, value in numbers.items():
        table.add_row(name, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


def measure(images: Path, k: int, folder: Path) -> dict[str, float]:
    """Seconds to write the report of a clustered run (files read before), its size, and the browser's times."""
    run = Run(folder, preset="offline", settings={"cluster": {"k": k}})
    embedded = run.embed(images)
    run.cluster()
    shutil.rmtree(folder / "report", ignore_errors=True)
    started = time.perf_counter()
    page = run.report()
    numbers: dict[str, float] = {"images": embedded.images, "objects": embedded.objects}
    numbers["s to write"] = time.perf_counter() - started
    files = [file for file in page.parent.rglob("*") if file.is_file()]
    numbers |= {"files": len(files), "MB": sum(file.stat().st_size for file in files) / 1e6}
    return numbers | time_opening(page)


def time_opening(page: Path) -> dict[str, float]:
    """Seconds until the page is loaded and until the map is drawn; nothing where there is no browser."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return {}
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from browser import browser
    from selenium.webdriver.support.ui import WebDriverWait

    with browser(page.parent) as driver:
        driver.get(page.resolve().as_uri())
        loaded = driver.execute_script(
            "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd / 1000"
        )
        driver.execute_script("document.getElementById('map').scrollIntoView()")
        drawn = "return document.getElementById('map').dataset.drawn === 'done' && performance.now() / 1000"
        return {
            "s until loaded": loaded,
            "s until the map is drawn": WebDriverWait(driver, 60, 0.02).until(lambda one: one.execute_script(drawn)),
        }


def write_repeated_images(images: Path, count: int, folder: Path) -> Path:
    """`count` files in `folder`: the images, each time a pixel narrower, so that no two are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    found = find_images(images)
    for index in range(count):
        file = folder / f"{index:06d}.jpg"
        if not file.exists():
            round_, place = divmod(index, len(found.names))
            with Image.open(found.root / found.names[place]) as picture:
                width, height = picture.size
                picture.convert("RGB").crop((round_, 0, width, height - round_)).save(file, quality=92)
    return folder


if __name__ == "__main__":
    main()
