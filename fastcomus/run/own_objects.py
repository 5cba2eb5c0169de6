"""Objects of one's own, with their embeddings, in place of those that `embed` would find: `--masks FILE.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.errors import InputError, get_first_line, suggest_path
from fastcomus.evaluation.truth.coco_masks import check_segmentation
from fastcomus.images.found import ImageList, UnreadableImage
from fastcomus.images.sizes import read_size
from fastcomus.progress import show_progress
from fastcomus.run.workplace import Workplace
from fastcomus.store.embeddings import check_embeddings, extract_embeddings
from fastcomus.store.objects_table import SKIPPED_SCHEMA, make_object_schema

_BOX = ("x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class OwnObjects:
    """Objects as in `make_object_schema`, sorted by image, and the images without any as in `SKIPPED_SCHEMA`."""

    objects: pa.Table
    skipped: pa.Table

    def select(self, names: Sequence[str]) -> tuple[pa.Table, pa.Table]:
        """Return the rows of some images, in the order of the tables."""
        objects, skipped = (
            table.take(pa.array(sorted(row for name in names for row in spans.get(name, ())), pa.int64()))
            for table, spans in zip((self.objects, self.skipped), self._spans, strict=True)
        )
        return objects, skipped

    @cached_property
    def _spans(self) -> tuple[dict[str, range], ...]:
        """The rows of every image in both tables."""
        return tuple(_find_spans(table["image"].to_pylist()) for table in (self.objects, self.skipped))


def is_object_table(masks: str) -> bool:
    """Whether the setting `masks` names a table of objects."""
    return masks.lower().endswith(".parquet")


def read_own_objects(at: Workplace, file: Path, found: ImageList, max_pixels: int) -> OwnObjects:
    """Read a table of objects.

    Columns: `image`, its name in the folder; `embedding`, a list of numbers; `mask`, COCO run lengths at the size of
    the image, or the box `x0`, `y0`, `x1`, `y1` in pixels, half-open; and `score`, if some masks are to lie on top.

    Args:
        at: Whose threads read the sizes of the images.
        file: Parquet.
        found: The images.
        max_pixels: Largest image to take, in pixels.

    Returns:
        The objects, those of one image in the order of the file.

    Raises:
        InputError: A column is missing or holds something else, a row is of no image, or a mask or box does not fit.
    """
    table = _read_table(file)
    embeddings = check_embeddings(extract_embeddings(table))
    known = {name: place for place, name in enumerate(found.names)}
    images = table["image"].to_pylist()
    if strange := [name for name in images if name not in known]:
        raise InputError(
            f"{len(strange)} rows of {file} are of images that are not in {found.root}, {strange[0]} for instance; "
            "name images by their path in that folder."
        )
    with show_progress("embed", len(found.names), "images") as advance:
        sizes = {}
        for name, size in zip(
            found.names, read_ahead(_measure(found, max_pixels), found.names, at.workers), strict=True
        ):
            sizes[name] = size
            advance(1)
    rows: list[dict[str, Any]] = []
    kept: list[int] = []
    columns = [name for name in ("mask", *_BOX, "score") if name in table.column_names]
    given = table.select(columns).to_pylist()
    for i in sorted(range(len(images)), key=lambda i: known[images[i]]):
        size = sizes[images[i]]
        if isinstance(size, UnreadableImage):
            continue
        try:
            rows.append({"image": images[i], "height": size[0], "width": size[1], **_read_object(given[i], size)})
        except ValueError as error:
            raise InputError(f"row {i} of {file}, of {images[i]}, {error}.") from error
        kept.append(i)
    schema = make_object_schema(embeddings.shape[1])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings[kept].ravel()), embeddings.shape[1])
    filled = {name: [row[name] for row in rows] for name in schema.names if name != "embedding"}
    with_objects = set(images)
    skipped = [
        _skip(name, size) for name, size in sizes.items() if name not in with_objects or isinstance(size, Exception)
    ]
    return OwnObjects(
        pa.table({**filled, "embedding": vectors}, schema=schema), pa.Table.from_pylist(skipped, schema=SKIPPED_SCHEMA)
    )


def _find_spans(images: Sequence[str]) -> dict[str, range]:
    """Return the rows of each image, of which all follow one another."""
    starts = [row for row, name in enumerate(images) if not row or name != images[row - 1]]
    return {images[start]: range(start, end) for start, end in pairwise([*starts, len(images)])}


def _read_table(file: Path) -> pa.Table:
    if not file.is_file():
        raise InputError(f"--masks {file} does not exist{suggest_path(file) or '; give a table of objects.'}")
    try:
        table = pq.read_table(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"--masks {file} cannot be read as Parquet: {get_first_line(error)}.") from error
    names = set(table.column_names)
    if not {"image", "embedding"} <= names or not ("mask" in names or names.issuperset(_BOX)):
        raise InputError(
            f"--masks {file} needs the columns image, embedding, and mask or x0, y0, x1, y1; it has "
            f"{', '.join(table.column_names)}."
        )
    if not len(table):
        raise InputError(f"--masks {file} has no row; give a row for each object.")
    return table


def _measure(found: ImageList, max_pixels: int) -> Any:
    def measure(name: str) -> tuple[int, int] | UnreadableImage:
        try:
            return read_size(found.root / name, max_pixels)
        except UnreadableImage as error:
            return error

    return measure


def _read_object(given: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Make the columns of a row but for image, size and embedding; ValueError says what is wrong with it."""
    counts = given.get("mask")
    if counts is None:
        counts = _encode_box([given.get(name) for name in _BOX], size)
    counts = counts.decode("ascii", errors="replace") if isinstance(counts, bytes) else counts
    packed = {"size": list(size), "counts": counts}
    check_segmentation(packed, size)
    area = int(coco_mask.area(packed))
    if not area:
        raise ValueError("has an empty mask")
    x0, y0, width, height = (int(one) for one in coco_mask.toBbox(packed))
    score = given.get("score")
    box = {"x0": x0, "y0": y0, "x1": x0 + width, "y1": y0 + height}
    return {**box, "area": area, "score": 1.0 if score is None else float(score), "mask": counts}


def _encode_box(box: list[Any], size: tuple[int, int]) -> str:
    if not all(isinstance(one, int) for one in box):
        raise ValueError("has neither a mask nor a box of whole numbers")
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(f"has the box {x0}, {y0}, {x1}, {y1} where the image is {size[1]} x {size[0]}")
    mask = np.zeros(size, np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    counts: str = coco_mask.encode(mask)["counts"].decode("ascii")
    return counts


def _skip(name: str, size: tuple[int, int] | UnreadableImage) -> dict[str, Any]:
    if isinstance(size, UnreadableImage):
        return {"image": name, "reason": size.reason, "detail": size.detail, "width": 0, "height": 0}
    return {"image": name, "reason": "no object given", "detail": "", "width": size[1], "height": size[0]}
