"""Export for Hugging Face datasets: a folder that `load_dataset` reads, with the columns image, mask and classes.

images/, palette PNGs in masks/, metadata.jsonl with a line per image, id2label.json as transformers takes it, and
README.md, the card by which the folder may be pushed to the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.store.masks import write_class_map
from fastcomus.store.run_folder import RunFolder

_IMAGES = "images/"


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Write the mask of an image and make its line of metadata.jsonl."""
    mask = f"masks/{place.removeprefix(_IMAGES)}.png"
    write_class_map(folder, mask, labels)
    present = [classes[label] for label in np.unique(labels) if label]
    return {"file_name": place, "mask_file_name": mask, "classes": present}


def _write_index(
    folder: RunFolder, places: Sequence[str], entries: Sequence[dict[str, Any]], classes: tuple[str, ...]
) -> None:
    folder.write_text("metadata.jsonl", "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in entries))
    folder.write_json("id2label.json", {str(label): name for label, name in enumerate(classes)})
    files = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path:\n"
    paths = "".join(f"    - {path}\n" for path in ("metadata.jsonl", "images/**", "masks/**"))
    card = (
        "---\ntask_categories:\n- image-segmentation\n"
        f"{files}{paths}---\n\nImages, and masks that fastcomus made of them without labels: 0 is background, the "
        "other labels are named in id2label.json.\n"
    )
    folder.write_text("README.md", card)


FORMAT = ExportFormat(
    lambda names: choose_places(names, _IMAGES, flat=False),
    _write_image,
    _write_index,
    most_classes=2**16 - 1,
    needs_outlines=False,
)
