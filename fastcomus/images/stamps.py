"""Size and time of change of images, which tell one state of a folder from another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcomus.images.found import ImageList


def stamp_images(found: ImageList, names: Sequence[str], masks: Path | None) -> list[list[Any]]:
    """Of each of the `names`: name, size and time of change (and of its own mask's), to tell when a shard is stale."""
    stamps: list[list[Any]] = []
    for name in names:
        place = found.root / name
        own = stamp_file(place) if isinstance(place, Path) else found.stamps.get(name)
        stamps.append([name, own, *(stamp_file(file) for file in (list_mask_candidates(masks, name) if masks else ()))])
    return stamps


def list_mask_candidates(folder: Path, name: str) -> tuple[Path, Path]:
    """Where the mask of image `name` may lie: after its whole file name, then after its stem."""
    return folder / f"{name}.png", (folder / name).with_suffix(".png")


def stamp_file(file: Path) -> list[int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
