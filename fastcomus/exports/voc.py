"""Export as PASCAL VOC: VOCdevkit/VOC2012 with JPEGImages/, palette PNGs in SegmentationClass/, and image lists.

The lists train and trainval hold all images. classes.txt names the labels, a line each, background first; labelmap.txt
gives them their colours, as CVAT and datumaro read it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_unique_stems
from fastcomus.store.masks import make_voc_palette, write_class_map
from fastcomus.store.run_folder import RunFolder

_ROOT = "VOCdevkit/VOC2012"


def _choose_places(names: Sequence[str]) -> Mapping[str, str]:
    return {name: f"{_ROOT}/JPEGImages/{stem}.jpg" for name, stem in choose_unique_stems(names, flat=True).items()}


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    write_class_map(folder, f"{_ROOT}/SegmentationClass/{PurePosixPath(place).stem}.png", labels)


def _write_index(folder: RunFolder, places: Sequence[str], entries: Sequence[None], classes: tuple[str, ...]) -> None:
    stems = "".join(f"{stem}\n" for stem in sorted(PurePosixPath(place).stem for place in places))
    for split in ("train", "trainval"):
        folder.write_text(f"{_ROOT}/ImageSets/Segmentation/{split}.txt", stems)
    folder.write_text(f"{_ROOT}/classes.txt", "".join(f"{name}\n" for name in classes))
    folder.write_text(f"{_ROOT}/labelmap.txt", make_label_map(classes))


def make_label_map(classes: tuple[str, ...]) -> str:
    """Return labelmap.txt: a line with name and colour for every class, background first."""
    colours = (",".join(map(str, colour)) for colour in make_voc_palette().tolist())
    lines = (f"{name}:{colour}::\n" for name, colour in zip(choose_map_names(classes), colours, strict=False))
    return "# label:color_rgb:parts:actions\n" + "".join(lines)


def choose_map_names(classes: tuple[str, ...]) -> list[str]:
    """Return the names as labelmap.txt can hold them: without its colon, not like its comments, each once."""
    names: list[str] = []
    for name in classes:
        wanted = shown = re.sub("^#|:", "_", name)
        number = 1
        while shown in names:
            number += 1
            shown = f"{wanted}-{number}"
        names.append(shown)
    return names


FORMAT = ExportFormat(_choose_places, _write_image, _write_index, most_classes=254, needs_outlines=False)  # 255 is void
