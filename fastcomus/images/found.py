"""Images that were found, and why others cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastcomus.errors import InputError
from fastcomus.images.roots import ImageRoot

LOST = "lost while reading"  # the file was listed and then could not be reached: it may be back the next time


@dataclass(frozen=True)
class Skipped:
    r"""One file or folder that was left out.

    Attributes:
        image: Path relative to the root with POSIX separators; bytes that are not UTF-8 are written as \xNN.
        reason: "unreadable", "truncated", "empty file", "too large", "not a regular file", "broken link", "unreadable
            folder", "name is not valid UTF-8", "no decoder" (see `formats`) or LOST; in tars and buckets also "unsafe
            name", "name occurs twice", "damaged archive" or "compressed archive". Later stages have reasons of their
            own.
        detail: One line of free text.
    """

    image: str
    reason: str
    detail: str


class NoImages(InputError):  # noqa: N818 - named after what was found
    """A folder that holds no image file."""


@dataclass(frozen=True)
class ImageList:
    """The images that were found.

    Attributes:
        root: Where they are; `root / name` is an image.
        names: Relative POSIX paths, sorted, each file once.
        skipped: What was left out.
        stamps: A JSON value by name that changes when the image does; only for images that are not files of their own.
        others: Number of other files of a folder by ending (`formats.get_ending_of_other`).
    """

    root: ImageRoot
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    stamps: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


class UnreadableImage(Exception):  # noqa: N818 - named after what was found
    """An image cannot be read; `reason` and `detail` are as in `Skipped`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def is_hidden(name: str) -> bool:
    """Whether files or folders of this name are passed over."""
    return name[0] == "." or name == "__MACOSX"


def is_utf8(name: str) -> bool:
    """Whether the operating system's bytes of a name are UTF-8 (Python keeps others as lone surrogates)."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
