"""Export for FiftyOne, as its ImageSegmentationDirectory: data/, grey PNGs in labels/, mask_targets.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.store.run_folder import RunFolder


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    # Grey: some of its readers turn a palette into colours.
    with folder.replace_file(f"labels/{PurePosixPath(place).stem}.png") as path:
        Image.fromarray(labels.astype(np.uint8 if len(classes) <= 256 else np.uint16)).save(path, format="PNG")


def _write_index(folder: RunFolder, places: Sequence[str], entries: Sequence[None], classes: tuple[str, ...]) -> None:
    folder.write_json("mask_targets.json", {str(label): name for label, name in enumerate(classes) if label})


FORMAT = ExportFormat(
    lambda names: choose_places(names, "data/", flat=True),
    _write_image,
    _write_index,
    most_classes=2**16 - 1,
    needs_outlines=False,
)
