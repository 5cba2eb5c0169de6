"""Export as tables: regions.csv with a row per connected region, images.csv with a row per image; no images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.regions import find_regions
from fastcomus.store.run_folder import RunFolder

_REGION_COLUMNS = ("image", "width", "height", "label", "class", "x0", "y0", "x1", "y1", "area")
_IMAGE_COLUMNS = ("image", "width", "height", "label", "class", "share", "background_share")


@dataclass(frozen=True)
class _Rows:
    """Rows of one image without its name."""

    image: tuple[Any, ...]
    regions: list[tuple[Any, ...]] = field(default_factory=list)


def _choose_places(names: Sequence[str]) -> Mapping[str, str]:
    return {name: name for name in names}


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> _Rows:
    """Make the rows of an image; its class is the one of most pixels, none where all is background."""
    height, width = labels.shape
    areas = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    label = int(areas[1:].argmax()) + 1 if areas[1:].any() else 0
    shares = f"{areas[label] if label else 0:.4f}", f"{areas[0]:.4f}"
    rows = _Rows((width, height, label, classes[label] if label else "", *shares))
    for region in find_regions(labels):
        box = (region.x0, region.y0, region.x0 + region.mask.shape[1], region.y0 + region.mask.shape[0])
        rows.regions.append((width, height, region.class_id, classes[region.class_id], *box, region.area))
    return rows


def _write_index(folder: RunFolder, places: Sequence[str], entries: Sequence[_Rows], classes: tuple[str, ...]) -> None:
    both = list(zip(places, entries, strict=True))
    folder.write_text("images.csv", _format_table(_IMAGE_COLUMNS, ((name, *one.image) for name, one in both)))
    regions = ((name, *region) for name, one in both for region in one.regions)
    folder.write_text("regions.csv", _format_table(_REGION_COLUMNS, regions))


def _format_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


FORMAT = ExportFormat(
    _choose_places, _write_image, _write_index, most_classes=2**16 - 1, needs_outlines=False, takes_images=False
)
