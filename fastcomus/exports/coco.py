"""Export as COCO: images/, and annotations/instances_default.json with a run-length mask per connected region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.exports.regions import find_regions
from fastcomus.store.run_folder import RunFolder

_IMAGES = "images/"


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Make an image's entry and its annotations, without ids; `file_name` is relative to images/."""
    annotations = []
    for region in find_regions(labels):
        size = list(labels.shape)
        run_lengths = coco_mask.frPyObjects({"size": size, "counts": region.compute_run_lengths(labels.shape)}, *size)
        height, width = region.mask.shape
        annotations.append(
            {
                "category_id": region.class_id,
                "segmentation": {"size": size, "counts": run_lengths["counts"].decode("ascii")},
                "area": region.area,
                "bbox": [region.x0, region.y0, width, height],
                "iscrowd": 0,
            }
        )
    image = {"file_name": place.removeprefix(_IMAGES), "width": labels.shape[1], "height": labels.shape[0]}
    return {"image": image, "annotations": annotations}


def _write_index(
    folder: RunFolder, places: Sequence[str], entries: Sequence[dict[str, Any]], classes: tuple[str, ...]
) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, entry in enumerate(entries, start=1):
        images.append({"id": image_id, **entry["image"]})
        for annotation in entry["annotations"]:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    categories = [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(classes) if label]
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    folder.write_json("annotations/instances_default.json", content)


FORMAT = ExportFormat(
    lambda names: choose_places(names, _IMAGES, flat=False),
    _write_image,
    _write_index,
    most_classes=2**16 - 1,
    needs_outlines=False,
)
