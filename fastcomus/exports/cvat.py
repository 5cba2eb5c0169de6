"""Export for CVAT: images/ to make a task of, labels.json for its labels, annotations.zip to upload to it.

The archive is what CVAT calls "Segmentation mask 1.1": labelmap.txt, ImageSets/Segmentation/default.txt and palette
PNGs in SegmentationClass/, named like the images without their endings.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.exports.voc import choose_map_names, make_label_map
from fastcomus.store.masks import make_voc_palette, write_class_map
from fastcomus.store.run_folder import RunFolder

_MASKS = "SegmentationClass"


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    write_class_map(folder, f"{_MASKS}/{PurePosixPath(place).stem}.png", labels)


def _write_index(folder: RunFolder, places: Sequence[str], entries: Sequence[None], classes: tuple[str, ...]) -> None:
    stems = sorted(PurePosixPath(place).stem for place in places)
    with folder.replace_file("annotations.zip") as path, zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("labelmap.txt"), make_label_map(classes))
        archive.writestr(zipfile.ZipInfo("ImageSets/Segmentation/default.txt"), "".join(f"{one}\n" for one in stems))
        for stem in stems:
            name = f"{_MASKS}/{stem}.png"
            archive.writestr(zipfile.ZipInfo(name), folder.resolve_file(name).read_bytes())
    folder.remove(_MASKS)
    names, palette = choose_map_names(classes), make_voc_palette()
    labels = [
        {"name": name, "color": f"#{bytes(palette[label]).hex()}", "type": "any", "attributes": []}
        for label, name in enumerate(names)
        if label
    ]
    folder.write_text("labels.json", json.dumps(labels, indent=2, ensure_ascii=False) + "\n")


FORMAT = ExportFormat(
    lambda names: choose_places(names, "images/", flat=True),
    _write_image,
    _write_index,
    most_classes=254,
    needs_outlines=False,
)
