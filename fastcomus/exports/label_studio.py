"""Export for Label Studio: images/, tasks.json with a brush per connected region as predictions, label-config.xml.

Predictions are suggestions, which a person accepts and corrects; nothing counts as annotated by hand. Paths of images
are those of Label Studio's local files, relative to LOCAL_FILES_DOCUMENT_ROOT: the folder of the export.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from fastcomus.exports.format import ExportFormat
from fastcomus.exports.image_files import choose_places
from fastcomus.exports.regions import Region, find_regions
from fastcomus.store.masks import make_voc_palette
from fastcomus.store.run_folder import RunFolder

_NAMES = {"from_name": "brush", "to_name": "image"}  # as in label-config.xml
_CHANNELS = 4  # a brush is an RGBA picture
_SIZES = (3, 4, 8, 16)  # bits of the length of a run, of which the shortest that holds it is taken


def _write_image(folder: RunFolder, place: str, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Make the task of an image."""
    height, width = labels.shape
    brushes = [
        {
            "id": f"region-{number}",
            "type": "brushlabels",
            **_NAMES,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": list(encode_brush(region, labels.shape)),
                "brushlabels": [classes[region.class_id]],
            },
        }
        for number, region in enumerate(find_regions(labels), start=1)
    ]
    data = {"image": f"/data/local-files/?d={quote(place)}"}
    return {"data": data, "predictions": [{"model_version": "fastcomus", "result": brushes}]}


def encode_brush(region: Region, shape: tuple[int, ...]) -> bytes:
    """Encode a region as Label Studio's run lengths (`@thi.ng/rle-pack`) of an RGBA picture that is 255 inside it.

    Args:
        region: The region.
        shape: Height and width of the image.

    Returns:
        A stream of bits: number of values (32), bits of a value less 1 (5), the four sizes less 1 (4 each); then for
        every run 1, which size (2), length less 1, and the value (8).
    """
    across = Region(region.class_id, region.mask.T, region.y0, region.x0)  # so that runs go along the rows
    bits = [f"{_CHANNELS * shape[0] * shape[1]:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for number, pixels in enumerate(across.compute_run_lengths(shape[::-1])):
        value, left = f"{255 * (number % 2):08b}", _CHANNELS * pixels
        while left:
            which = next((i for i, size in enumerate(_SIZES) if left <= 2**size), len(_SIZES) - 1)
            length = min(left, 2 ** _SIZES[which])
            bits.append(f"1{which:02b}{length - 1:0{_SIZES[which]}b}{value}")
            left -= length
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return int(stream, 2).to_bytes(len(stream) // 8, "big")


def _write_index(
    folder: RunFolder, places: Sequence[str], entries: Sequence[dict[str, Any]], classes: tuple[str, ...]
) -> None:
    folder.write_text("tasks.json", json.dumps(list(entries), ensure_ascii=False) + "\n")
    palette = make_voc_palette()
    lines = [
        f'    <Label value={quoteattr(name)} background="#{bytes(palette[label % len(palette)]).hex()}"/>\n'
        for label, name in enumerate(classes)
        if label
    ]
    config = (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n  <BrushLabels name="brush" toName="image">\n'
        f"{''.join(lines)}  </BrushLabels>\n</View>\n"
    )
    folder.write_text("label-config.xml", config)


FORMAT = ExportFormat(
    lambda names: choose_places(names, "images/", flat=True),
    _write_image,
    _write_index,
    most_classes=2**16 - 1,
    needs_outlines=False,
)
