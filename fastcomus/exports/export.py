"""Masks of an iteration in the formats of other tools, each with the images it belongs to."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.clusters.named_masks import ClassMaps
from fastcomus.config import IMAGE_TRANSFERS
from fastcomus.errors import InputError, suggest_names
from fastcomus.exports import coco, labelme, voc, yolo
from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import place_image
from fastcomus.images.roots import ImageRoot
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import show_progress
from fastcomus.store.run_folder import RunFolder

FORMATS: dict[str, ExportFormat] = {
    "coco": coco.FORMAT,
    "voc": voc.FORMAT,
    "yolo": yolo.FORMAT,
    "labelme": labelme.FORMAT,
}


@dataclass(frozen=True)
class Transfer:
    """How the images come into an export: from `root`, by `how` ("link" or "copy"), of `max_pixels` at most."""

    root: ImageRoot
    how: str
    max_pixels: int


def export_masks(format_name: str, masks: ClassMaps, transfer: Transfer, target: Path) -> int:
    """Write the masks of every image that has one, with the images themselves, to the folder `target`; the number of
    images.

    The folder appears when all of it is there. InputError for an unknown format, a target that holds something, more
    classes than the format can tell apart, no mask at all, or an image that has changed or gone since it was embedded.
    """
    chosen = _check_export(format_name, masks, transfer, target)
    images = masks.select_present(masks.images)
    if not images:
        raise InputError(f"iteration {masks.iteration} in {masks.folder.path} has no masks; run fastcomus train.")
    places = chosen.places(images)
    target = Path(os.path.abspath(target))
    unfinished = target.parent / f".{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = RunFolder(unfinished)

    def write(image: str) -> Any:
        labels = masks.read(image)
        place_image(transfer.root / image, folder, places[image], labels.shape, transfer.how, transfer.max_pixels)
        return chosen.write_image(folder, places[image], labels, masks.names.classes)

    try:
        with show_progress(f"export {format_name}", len(images), "images") as advance:
            entries = []
            for entry in read_ahead(write, images, masks.workers):
                entries.append(entry)
                advance(1)
                reach_safe_point()
        chosen.write_index(folder, [places[image] for image in images], entries, masks.names.classes)
        try:
            if target.exists():
                target.rmdir()
            unfinished.rename(target)
        except OSError as error:  # something came there meanwhile
            raise InputError(f"{target} cannot be written ({error.strerror or error}); choose another.") from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return len(images)


def _check_export(format_name: str, masks: ClassMaps, transfer: Transfer, target: Path) -> ExportFormat:
    if format_name not in FORMATS:
        known = ", ".join(FORMATS)
        raise InputError(f"the format must be one of {known}; got {format_name!r}{suggest_names(format_name, FORMATS)}")
    if transfer.how not in IMAGE_TRANSFERS:
        raise InputError(f"images must come by {' or '.join(IMAGE_TRANSFERS)}; got {transfer.how!r}.")
    chosen = FORMATS[format_name]
    if masks.k > chosen.most_classes:
        raise InputError(
            f"{format_name} masks hold {chosen.most_classes} classes at most and these have {masks.k}; merge some with "
            "fastcomus name, or export coco."
        )
    if chosen.needs_outlines and importlib.util.find_spec("skimage") is None:
        raise InputError(f'export {format_name} needs scikit-image; run pip install "fastcomus[offline]".')
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already and not empty; delete it, or choose another --output.")
    return chosen
