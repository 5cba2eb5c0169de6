"""Images for tables of any kind, and what holds of every table that has them."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcomus.images.found import ImageList, UnreadableImage
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.reading import read_image

RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (6, 8 + i, 3), dtype=np.uint8) for i in range(9)]


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def list_contents() -> list[bytes | None]:
    """All of PIXELS as PNG, but none in row 4."""
    return [None if row == 4 else encode(one) for row, one in enumerate(PIXELS)]


def check_rows(table: Path) -> ImageList:
    """Every row of a table of `list_contents` is found, and read in any order; returns what is found."""
    found = find_listed_images(table)
    assert found.names == tuple(f"{table.name}/{row:08d}.png" for row in range(9) if row != 4)
    assert [(one.image, one.reason) for one in found.skipped] == [(f"{table.name}/00000004", "empty file")]
    again = open_root(str(found.root), found.names)
    rows = [8, 0, 5, 1, 7, 2, 6, 3] * 4
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda row: read_image(again / f"{table.name}/{row:08d}.png", 10**6), rows))
    assert all((one == PIXELS[row]).all() for one, row in zip(read, rows, strict=True))
    with pytest.raises(UnreadableImage, match="fewer rows"):
        (again / f"{table.name}/00000099.png").read_encoded(10**6)
    return found
