"""Size and time of change of images, which tell one state of a folder from another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcomus.images.found import ImageList
from fastcomus.images.mask_files import MaskFiles


def stamp_images(found: ImageList, names: Sequence[str], masks: MaskFiles | None) -> list[list[Any]]:
    """Return what tells whether images or their masks changed since a shard was made.

    Args:
        found: The images.
        names: Those to look at.
        masks: The user's own masks, if any.

    Returns:
        For each name: the name, size and time of change of the image, and those of each possible mask (JSON).
    """
    stamps: list[list[Any]] = []
    for name in names:
        place = found.root / name
        own = stamp_file(place) if isinstance(place, Path) else found.stamps.get(name)
        stamps.append([name, own, *(_stamp_mask(masks, name) if masks else ())])
    return stamps


def stamp_file(file: Path) -> list[int] | None:
    """Return size in bytes and time of change in ns; None if the file cannot be looked up."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _stamp_mask(files: MaskFiles, name: str) -> list[list[int] | None]:
    """Stamp the two usual places of a mask, and the mask if it lies in neither."""
    places = [files.folder / f"{name}.png", (files.folder / name).with_suffix(".png")]
    if (found := files.find(name)) and found not in places:
        places.append(found)
    return [stamp_file(file) for file in places]
