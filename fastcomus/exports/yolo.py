"""Export for YOLO segmentation: images/, a text file per image in labels/, data.yaml with the names of the classes.

A text file has a line per connected region: the class (0 is the first after background), then x and y of the points of
its outline as shares of the image's width and height. There are no folders below images/ and labels/: Ultralytics finds
an image's labels by the last /images/ of its path, which might be the user's, and other readers look into none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.exports.regions import find_regions, trace_outline
from fastcomus.store.run_folder import RunFolder

_IMAGES, _LABELS = "images/", "labels/"


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    height, width = labels.shape
    lines = []
    for region in find_regions(labels):
        shares = (trace_outline(region) / (width, height)).ravel()
        lines.append(f"{region.class_id - 1} {' '.join(f'{share:.7g}' for share in shares)}\n")
    name = PurePosixPath(place.removeprefix(_IMAGES)).with_suffix(".txt")
    folder.write_text(f"{_LABELS}{name}", "".join(lines))


def _write_index(folder: RunFolder, places: Sequence[str], entries: Sequence[None], classes: tuple[str, ...]) -> None:
    import yaml

    names = dict(enumerate(classes[1:]))
    content = {
        "train": "images",
        "val": "images",
        "names": names,
    }  # without the key `path`, folders are beside this file
    folder.write_text("data.yaml", yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


FORMAT = ExportFormat(
    lambda names: choose_places(names, _IMAGES, flat=True),
    _write_image,
    _write_index,
    most_classes=2**16 - 1,
    needs_outlines=True,
)
