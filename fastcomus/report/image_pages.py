"""What the image pages of the report show, as scripts that a page opened from disk can load, a part at a time."""

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
    """`numbers`: of the images that have a picture. `files`: scripts with what is in them, in order, each of
    `per_file` images but the last."""

    numbers: dict[str, int]
    files: tuple[str, ...]
    per_file: int


def write_image_data(target: RunFolder, drawn: Sequence[DrawnImage], iterations: int) -> Pictures:
    """Write data/images-NNN.js: `fastcomus.images[NNN]` is a list of {name, number, size, labels} in order of the
    images; `labels` has the clusters in each iteration's mask, or null without a mask."""
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
    # Where a picture stands among those that could be drawn.
    return Pictures({entry["name"]: place for place, entry in enumerate(entries)}, tuple(files), per_file)
