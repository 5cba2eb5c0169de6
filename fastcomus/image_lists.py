"""Images named by a folder, a file, a list of paths, or standard input."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError
from fastcomus.image_roots import ImageRoot
from fastcomus.images import ENDINGS, ImageList, Skipped, find_images

STANDARD_INPUT = "-"


def find_listed_images(images: Path | str | ImageList) -> ImageList:
    """The images of `images`, unless they are listed already: a folder or an image (see `find_images`), any other file,
    which is read as a list with one path a line, or "-", such a list on standard input.

    Paths of a list are relative to the current folder; `root` is the deepest folder that all of them lie in, so that
    names never lead out of it. Files that are missing are skipped. Raises InputError for a list that is no text or
    names no file that is there.
    """
    if isinstance(images, ImageList):
        return images
    source = Path(images)
    if str(images) == STANDARD_INPUT:
        return _from_list(sys.stdin.buffer.read(), "standard input")
    if not source.is_file() or source.suffix.lower().removeprefix(".") in ENDINGS:
        return find_images(source)
    try:
        return _from_list(source.read_bytes(), str(images))
    except OSError as error:
        raise InputError(f"the list {images} cannot be read ({error.strerror}); check its permissions.") from error


def opened_root(address: str) -> ImageRoot:
    """The root of an `ImageList` again, from `str(root)`; InputError where it is no longer there."""
    if not os.path.isdir(address):
        raise InputError(f"the images of this run lay in {address}, which is no longer there; put them back.")
    return Path(address)


def _from_list(content: bytes, shown: str) -> ImageList:
    if b"\0" in content:
        raise InputError(f"{shown} is neither an image nor a list of paths; give a folder, an image or text.")
    try:
        lines = [os.fsdecode(line.rstrip(b"\r")) for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    except UnicodeDecodeError as error:  # on Windows, where paths are text
        raise InputError(f"{shown} is not UTF-8 ({error.reason}); save it as such.") from error
    paths = sorted({os.path.abspath(line) for line in lines if line.strip()})
    if not paths:
        raise InputError(f"{shown} names no image; give one path a line.")
    root = common_folder(paths)
    names, skipped = [], []
    for path in paths:
        name = Path(path).relative_to(root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            printable = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
            skipped.append(Skipped(printable, "name is not valid UTF-8", "rename it to use it"))
            continue
        if os.path.isfile(path):
            names.append(name)
        else:
            skipped.append(Skipped(name, "not a regular file" if os.path.exists(path) else "unreadable", _why(path)))
    if not names:
        first = f"{skipped[0].image} ({skipped[0].detail})"
        raise InputError(f"none of the {len(paths)} paths in {shown} is a file, such as {first}; give paths from here.")
    return ImageList(Path(root), tuple(sorted(names)), tuple(skipped))


def common_folder(paths: Sequence[str], kind: Any = os.path) -> str:
    """The deepest folder that all of `paths`, absolute, lie in. `kind`: posixpath or ntpath, by default this system's.
    Raises InputError where there is none, as on two drives of Windows."""
    try:
        return str(kind.commonpath([kind.dirname(path) for path in paths]))
    except ValueError as error:
        raise InputError(f"{paths[0]} and {paths[-1]} lie on different drives; label each drive alone.") from error


def _why(path: str) -> str:
    return "a folder, pipe, socket or device" if os.path.exists(path) else "the file does not exist"
