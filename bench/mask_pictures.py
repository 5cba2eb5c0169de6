"""docs/masks.jpg: what the saliency methods without weights make of pictures that they suit, and of others.

    python -m bench.mask_pictures

The pictures come with scikit-image, or are drawn as those of `fastcomus demo` are.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage import data
from skimage.segmentation import find_boundaries

from fastcomus import Run
from fastcomus.store.objects_table import decode_mask

SUITED, OTHERS = ("cup", "motorcycle", "coins"), ("cat", "eye", "rocket", "page", "gravel")
METHODS = ("background-prior", "three-priors")
TILE, MARGIN = (176, 132), 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/masks.jpg"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        pictures = {name: make_picture(name) for name in (*SUITED, *OTHERS)}
        for name, picture in pictures.items():
            picture.save(images / f"{name}.png")
        rows = [pictures]
        for method in METHODS:
            run = Run(Path(folder, method), preset="offline", device="cpu")
            run.embed(images, saliency=method)
            found = {Path(row["image"]).stem: row for row in run.objects().to_pylist()}
            rows.append({name: outline(picture, found.get(name)) for name, picture in pictures.items()})
    sheet = Image.new("RGB", ((TILE[0] + 4) * len(pictures), (TILE[1] + 4 + MARGIN) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (title, row) in enumerate(zip(("photograph", *METHODS), rows, strict=True)):
        pen.text((2, y * (TILE[1] + 4 + MARGIN) + 4), title, fill="black", font_size=13)
        for x, tile in enumerate(row.values()):
            sheet.paste(tile, (x * (TILE[0] + 4), y * (TILE[1] + 4 + MARGIN) + MARGIN))
    sheet.save(arguments.output, quality=78, optimize=True)


def make_picture(name: str) -> Image.Image:
    """A picture of the size of a tile."""
    sources = {"cup": data.coffee, "eye": data.retina, "cat": data.chelsea, "motorcycle": data.stereo_motorcycle}
    pixels = sources.get(name, getattr(data, name, None))()
    picture = Image.fromarray(pixels[0] if isinstance(pixels, tuple) else pixels).convert("RGB")
    width, height = picture.size
    wide = min(width, round(height * TILE[0] / TILE[1]))
    high = min(height, round(width * TILE[1] / TILE[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return picture.crop((left, top, left + wide, top + high)).resize((TILE[0] * 2, TILE[1] * 2)).resize(TILE)


def outline(picture: Image.Image, found: dict | None) -> Image.Image:
    """The picture with what is not object greyed out, and the outline of what is."""
    mask = np.zeros((picture.height, picture.width), bool)
    if found:
        mask = np.asarray(decode_mask(found["mask"], found["height"], found["width"]), bool)
    pixels = np.asarray(picture)
    shown = np.where(mask[..., None], pixels, pixels // 3 + 150).astype(np.uint8)
    shown[find_boundaries(mask)] = (220, 30, 30)
    return Image.fromarray(shown)


if __name__ == "__main__":
    main()
