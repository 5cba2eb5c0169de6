"""Data of the report's image pages, in scripts that a page opened from disk can load part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastcomus.report.image_files import DrawnImage
from fastcomus.report.script_data import write_script
from fastcomus.store.run_folder import RunFolder

IMAGES_PER_PAGE = 12
_PAGES_PER_FILE = 40


@dataclass(frozen=True)
class Pictures:
    """The images that have a picture.

    Attributes:
        numbers: Place of each image among them.
        files: Scripts that describe them, in order.
        per_file: Number of images in each script but the last.
    """

    numbers: dict[str, int]
    files: tuple[str, ...]
    per_file: int


def write_image_data(target: RunFolder, drawn: Sequence[DrawnImage], iterations: int) -> Pictures:
    """Write data/images-NNN.js, which set `fastcomus.images[NNN]` to a list of {name, number, size, labels}.

    Args:
        target: The folder of the report.
        drawn: The images; those without a picture are left out.
        iterations: Number of iterations; `labels` has the clusters in each one's mask, or null without a mask.

    Returns:
        The images written, and the scripts.
    """
    entries: list[dict[str, Any]] = [
        {
            "name": image.work.name,
            "number": image.work.number,
            "size": image.size,
            "labels": image.labels,
        }
        for image in drawn
        if image.work.number is not None and not image.error
    ]
    assert all(len(image.labels) == iterations for image in drawn if image.labels)
    per_file = IMAGES_PER_PAGE * _PAGES_PER_FILE
    files = []
    for start in range(0, len(entries), per_file):
        index = start // per_file
        files.append(f"data/images-{index:03d}.js")
        write_script(target, files[-1], f"fastcomus.images[{index}]", entries[start : start + per_file])
    return Pictures({entry["name"]: place for place, entry in enumerate(entries)}, tuple(files), per_file)
