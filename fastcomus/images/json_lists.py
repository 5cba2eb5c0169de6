"""Lists of images in the JSON of other tools: COCO's annotations and the samples.json of FiftyOne."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError
from fastcomus.images.coco_entries import read_path

_KEYS = {"images": "file_name", "samples": "filepath"}


def is_json(path: str) -> bool:
    """Whether a file is taken for JSON by its ending."""
    return path.lower().endswith(".json")


def read_json_list(file: Path) -> list[str]:
    """Read the images that a JSON file lists.

    Paths are relative to the current folder, or else to the folder of the file, the one above it, or `images` or `data`
    in these: the first of these that holds the first image. A path of Windows counts as one with slashes.

    Args:
        file: COCO's (`images`, with `file_name`) or FiftyOne's (`samples`, with `filepath`).

    Returns:
        Paths, in the order of the file.

    Raises:
        InputError: It cannot be read, or lists no image that is there.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"the list {file} cannot be read ({error.strerror}); check its permissions.") from error
    except ValueError as error:
        raise InputError(f"{file} is no JSON that can be read ({error}).") from error
    listed = [read_path(one[key]) for name, key in _KEYS.items() for one in _get_entries(content, name) if key in one]
    if not listed:
        raise InputError(
            f"{file} lists no image: it needs COCO's images with file_name, or FiftyOne's samples with filepath."
        )
    folder = file.absolute().parent
    tried = [Path(), *(place / name for place in (folder, folder.parent) for name in ("", "images", "data"))]
    base = next((place for place in tried if (place / listed[0]).is_file()), None)
    if base is None:
        raise InputError(
            f"{file} lists {listed[0]}, which lies neither here nor in {folder}, the folder above, or images or data "
            "in these; start the command where the paths begin, or put the file there."
        )
    return [str(base / one) for one in listed]


def _get_entries(content: Any, name: str) -> list[dict[str, Any]]:
    entries = content.get(name) if isinstance(content, dict) else None
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
