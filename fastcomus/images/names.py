"""Names of images that strangers give (members of a tar, keys of a bucket): each becomes a path in the run folder."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from fastcomus.errors import InputError, escape_invalid_utf8
from fastcomus.images.found import Skipped, is_hidden, is_utf8

UNSAFE = "unsafe name"
_MADE_OF_IMAGES = ("png", "jpg", "npy")  # endings, behind the image's name, of masks, overlays and probabilities
_LONGEST_NAME = 1024  # bytes; longer ones than buckets allow
_LONGEST_FOLDER = 255  # bytes, on every common file system


def explain_unsafe_name(name: str) -> str:
    """Return why `name` cannot be the relative POSIX path of a file below a folder; "" if it can."""
    parts = name.split("/")
    if name.startswith("/"):
        return "an absolute path"
    if ".." in parts:
        return "it leads out of its folder"
    if "" in parts or "." in parts:
        return "a part of it is empty"
    if "\0" in name or (os.sep == "\\" and any(character in name for character in "\\:")):
        return "a character that no path can have"
    if len(name.encode(errors="surrogateescape")) > _LONGEST_NAME:
        return f"longer than {_LONGEST_NAME} bytes"
    if any(len(part.encode(errors="surrogateescape")) > _LONGEST_FOLDER for part in parts[:-1]):
        return f"a folder's name longer than {_LONGEST_FOLDER} bytes"
    return ""


def select_safe_names(names: Iterable[str]) -> tuple[list[str], list[Skipped]]:
    """Choose the names that can be files of one folder, beside one another and their masks.

    Args:
        names: Names of members of a tar or keys of a bucket. Of two equal ones the first is taken.

    Returns:
        The sorted names, and why others are skipped. Hidden ones are in neither, as with files of a folder.
    """
    taken: set[str] = set()
    skipped: list[Skipped] = []
    for name in names:
        if any(is_hidden(part) for part in name.split("/") if part not in ("", ".", "..")):
            continue
        if not is_utf8(name):
            skipped.append(Skipped(escape_invalid_utf8(name), "name is not valid UTF-8", "rename it to use it"))
        elif why := explain_unsafe_name(name):
            skipped.append(Skipped(escape_invalid_utf8(name), UNSAFE, why))
        elif name in taken:
            skipped.append(Skipped(name, "name occurs twice", "the first is taken"))
        else:
            taken.add(name)
    in_the_way = {name: other for name in taken if (other := _find_blocking_file(name, taken))}
    skipped += [Skipped(name, UNSAFE, f"{other} is an image as well") for name, other in in_the_way.items()]
    return sorted(taken - in_the_way.keys()), skipped


def _find_blocking_file(name: str, names: set[str]) -> str:
    """Return the image that is, or of which a file is, called like one of the folders of `name`; "" if none is."""
    place = name.find("/")
    while place >= 0:
        folder = name[:place]
        image, _, ending = folder.rpartition(".")
        if folder in names:
            return folder
        if image in names and ending.lower() in _MADE_OF_IMAGES:
            return image
        place = name.find("/", place + 1)
    return ""


def check_names(names: Iterable[str], folder: Path) -> None:
    """Raise InputError if two of `names` cannot both have a mask in `folder`.

    Its disk may take them for one, or a file that is made of one may be called like a folder of the other.
    """
    seen: dict[str, str] = {}
    names = set(names)
    for name in sorted(names):
        if blocking := _find_blocking_file(name, names):
            raise InputError(
                f"what is made of the image {blocking} would be called like a folder of the image {name}; rename one "
                "of them."
            )
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name and not is_distinct_on_disk(other, name, folder):
            raise InputError(
                f"the images {other} and {name} would share a mask: the disk of {folder} takes these names for one. "
                "Rename one, or put the run on another disk."
            )


def is_distinct_on_disk(one: str, other: str, folder: Path) -> bool:
    """Whether the disk that holds (or will hold) `folder` tells two names apart; True if it cannot be written to."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(dir=folder, suffix=".unfinished") as scratch:
            for name in (one, other):
                Path(scratch, name.replace("/", "_")).touch()
            return len(list(Path(scratch).iterdir())) == 2
    except OSError:
        return True
