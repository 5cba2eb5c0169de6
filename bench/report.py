"""What the report costs: seconds and megabytes, and how soon the page is there.

    python -m bench.report --data ../shared/data/msrc14/JPEGImages --k 14
    python -m bench.report --data ../shared/data/msrc14/JPEGImages --k 14 --objects 10000

Embeds and clusters the images with the preset offline unless --run holds that already, then writes the report anew.
`--objects` repeats the images, slightly cropped, until they give so many. Where chromium and selenium are here, the
page is opened as well: the seconds until it is loaded, and until the map is drawn.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from PIL import Image

from bench import harness
from fastcomus.images.folder import find_images
from fastcomus.run.run import Run


def main() -> None:
    parser = harness.make_parser(__doc__, "report", data=None)
    parser.add_argument("--k", type=int, default=14, help="clusters")
    parser.add_argument("--objects", type=int, default=0, help="repeat the images until they are so many; 0 does not")
    parser.add_argument("--run", type=Path, default=Path("report-run"), help="folder for images and run")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    images, folder = arguments.data, arguments.run / "run"
    if arguments.objects:
        images = write_repeated_images(images, arguments.objects, arguments.run / "images")
    run = Run(folder, preset="offline", settings={"cluster": {"k": arguments.k}})
    embedded = run.embed(images)
    run.cluster()
    shutil.rmtree(folder / "report", ignore_errors=True)
    times = harness.time_once(run.report)
    files = [file for file in times.result.parent.rglob("*") if file.is_file()]
    numbers = {"images": embedded.images, "objects": embedded.objects, "s to write": times.median_s}
    numbers |= {"files": len(files), "MB": sum(file.stat().st_size for file in files) / 1e6}
    numbers |= time_opening(times.result)
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
