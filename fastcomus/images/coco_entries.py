"""File names and ids in COCO's JSON: one reading of them for lists of images, for truth and for masks."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from fastcomus.errors import InputError


def read_path(text: Any) -> str:
    """Return a `file_name` as a path with slashes, whichever system wrote it."""
    return PurePosixPath(str(text).replace("\\", "/")).as_posix()


def read_name(text: Any) -> str:
    """Return a `file_name` as `read_path` does, below the folder of the images: without a slash before it."""
    return read_path(str(text).lstrip("/\\"))


def read_id(value: Any, what: str, file: Path) -> str:
    """Return an id as text, so that 1, 1.0 and "1", as some tools write it, are the same.

    Args:
        value: The id.
        what: What the error calls it.
        file: Where it stands.

    Raises:
        InputError: It is neither a whole number nor a text.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) not in (int, str):
        raise InputError(f"{file} has the {what} {value!r}; ids are whole numbers or texts.")
    return str(value).strip()
