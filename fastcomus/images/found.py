"""Images that were found, and why others cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastcomus.errors import InputError
from fastcomus.images.roots import ImageRoot

LOST = "lost while reading"  # the file was listed and then could not be reached: it may be back the next time
ENDINGS = ("jpg", "jpeg", "jpe", "png", "webp", "bmp", "tif", "tiff", "gif")


@dataclass(frozen=True)
class Skipped:
    """One file or folder that was left out.

    `image`: path relative to the root, POSIX separators; bytes that are not UTF-8 stand as `\\xNN`.
    `reason`: "unreadable", "truncated", "empty file", "too large", "not a regular file", "broken link",
    "unreadable folder", "name is not valid UTF-8" or LOST; of what strangers named or packed, "unsafe name", "name
    occurs twice", "damaged archive" or "compressed archive"; later stages have reasons of their own.
    `detail`: one line of free text.
    """

    image: str
    reason: str
    detail: str


class NoImages(InputError):
    """A folder that holds no image file."""


@dataclass(frozen=True)
class ImageList:
    """The images under `root`: `names` are relative POSIX paths, sorted, each file once.

    `stamps`: by name, what changes when the image does (JSON), where it is no file whose size and time tell it.
    """

    root: ImageRoot
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    stamps: Mapping[str, Any] = field(default_factory=dict)


class UnreadableImage(Exception):
    """`read_image` cannot use a file; `reason` and `detail` are those of `Skipped`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def is_hidden(name: str) -> bool:
    return name[0] == "." or name == "__MACOSX"


def has_image_ending(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    return bool(stem) and ending.lower() in ENDINGS


def is_utf8(name: str) -> bool:
    """False where the operating system's bytes did not decode (Python keeps those as lone surrogates)."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
