"""Export for LabelMe: beside each image a JSON file with a polygon per connected region; labels.txt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.exports.regions import find_regions, trace_outline
from fastcomus.store.run_folder import RunFolder

_VERSION = "5.5.0"  # of LabelMe, whose files these equal


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    shapes = [
        {
            "label": classes[region.class_id],
            "points": trace_outline(region).tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for region in find_regions(labels)
    ]
    path = PurePosixPath(place)
    content = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": path.name,
        "imageData": None,
        "imageHeight": labels.shape[0],
        "imageWidth": labels.shape[1],
    }
    folder.write_text(str(path.with_suffix(".json")), json.dumps(content, ensure_ascii=False) + "\n")


def _write_index(folder: RunFolder, places: Sequence[str], entries: Sequence[None], classes: tuple[str, ...]) -> None:
    folder.write_text("labels.txt", "".join(f"{name}\n" for name in classes[1:]))


FORMAT = ExportFormat(
    lambda names: choose_places(names, "", flat=False),
    _write_image,
    _write_index,
    most_classes=2**16 - 1,
    needs_outlines=True,
)
