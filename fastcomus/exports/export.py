"""Export of the masks of an iteration, with their images, in the formats of other tools."""

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
from fastcomus.exports import coco, cvat, hugging_face, label_studio, labelme, spreadsheet, voc, voxel51, yolo
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
    "label-studio": label_studio.FORMAT,
    "cvat": cvat.FORMAT,
    "fiftyone": voxel51.FORMAT,
    "huggingface": hugging_face.FORMAT,
    "csv": spreadsheet.FORMAT,
}


@dataclass(frozen=True)
class Transfer:
    """How the images come into an export.

    Attributes:
        root: Where the images lie.
        how: "link" or "copy".
        max_pixels: Largest image to decode, in pixels.
    """

    root: ImageRoot
    how: str
    max_pixels: int


def export_masks(format_name: str, masks: ClassMaps, transfer: Transfer, target: Path) -> int:
    """Write all masks of an iteration and their images to a folder, which appears when it is complete.

    Args:
        format_name: One of FORMATS.
        masks: The class maps.
        transfer: How the images come into the export.
        target: The folder to write; it must be empty or missing.

    Returns:
        The number of images.

    Raises:
        InputError: The format is unknown or holds fewer classes, the target is not empty, there is no mask, or an
            image changed or is gone since it was embedded.
    """
    chosen = _check_export(format_name, masks, transfer, target)
    images = masks.select_present(masks.images)
    if not images:
        raise InputError(f"iteration {masks.iteration} in {masks.folder.path} has no masks; run fastcomus train.")
    places = chosen.places(images)
    target = Path(os.path.abspath(target))  # noqa: PTH100  (`resolve` would follow a link)
    unfinished = target.parent / f".{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    folder = RunFolder(unfinished)

    def write(image: str) -> Any:
        labels = masks.read(image)
        if chosen.takes_images:
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
        except OSError as error:  # something was put there meanwhile
            raise InputError(f"{target} cannot be written ({error.strerror or error}); choose another.") from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return len(images)


def _check_export(format_name: str, masks: ClassMaps, transfer: Transfer, target: Path) -> ExportFormat:
    if format_name not in FORMATS:
        known = ", ".join([*FORMATS, "onnx"])
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
        raise InputError(f"export {format_name} needs scikit-image; run pip install scikit-image.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} is there already and not empty; delete it, or choose another --output.")
    return chosen
