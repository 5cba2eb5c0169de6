"""Images named by a folder, a file, a list of paths, or standard input."""

# Paths are strings here: pathlib has no abspath that keeps links, nor a glob of absolute patterns.
# ruff: noqa: PTH100, PTH110, PTH112, PTH113, PTH120, PTH207

from __future__ import annotations

import codecs
import glob
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError, escape_invalid_utf8
from fastcomus.images.addresses import is_url
from fastcomus.images.folder import find_files, find_images
from fastcomus.images.formats import describe_others, explain_no_decoder, has_image_ending
from fastcomus.images.found import ImageList, NoImages, Skipped
from fastcomus.images.json_lists import is_json, read_json_list
from fastcomus.images.lance_tables import is_lance_table
from fastcomus.images.patterns import expand_braces, get_fixed_folder, has_wildcard
from fastcomus.images.roots import ImageRoot
from fastcomus.images.tables import ImageTables, find_in_tables, is_in_table, is_table
from fastcomus.images.tar_shards import TarShards, find_in_shards, is_tar, split_name
from fastcomus.images.videos import VideoFrames, find_in_video, is_video

log = logging.getLogger("fastcomus")
STANDARD_INPUT = "-"
Images = Path | str | Sequence[Path | str] | ImageList


def find_listed_images(images: Images, every_seconds: float = 1.0) -> ImageList:
    """List the images that a user gave in any of the ways that commands accept.

    Args:
        images: A folder or an image (see `find_images`); tars (a folder of them, one, or a pattern such as
            shards-{000..009}.tar); any of these behind a URL (`remote_images`); Parquet or Lance tables of images (a
            folder of them, or one); a video, for some of its frames; JSON of COCO or FiftyOne that lists images; any
            other file, which is read as a list with one path or URL per line; "-", such a list on standard input; a
            list of paths or URLs in Python; or an `ImageList`, which is returned as it is.
        every_seconds: Of a video, seconds from one frame to the next; 0 takes all.

    Returns:
        The images. Paths in a list are relative to the current folder, and `root` is then the deepest folder that
        holds all of them. Missing files are skipped.

    Raises:
        InputError: There is no image, or a list is not text.
    """
    found = images if isinstance(images, ImageList) else _find_any(images, every_seconds)
    if found.others and found is not images:
        log.info("left out in %s: %s", found.root, describe_others(found.others))
    return found


def _find_any(images: Path | str | Sequence[Path | str], every_seconds: float) -> ImageList:
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        if not all(isinstance(one, Path | str) and "\n" not in str(one) for one in images):
            raise InputError("a list of images must hold paths or URLs, as text or pathlib.Path.")
        return _from_list("\n".join(map(str, images)).encode(errors="surrogateescape"), "the list of images")
    if not isinstance(images, Path | str):
        raise InputError(f"images must be a path, a URL or a list of these; got {type(images).__name__}.")
    source = Path(images)
    if is_url(str(images)):
        from fastcomus.images.remote_images import find_remote_images

        return find_remote_images(str(images))
    if str(images) == STANDARD_INPUT:
        return _from_list(sys.stdin.buffer.read(), "standard input")
    if is_lance_table(source.absolute()):
        return find_in_tables(str(source.resolve()), source.resolve().parent, [source.resolve().name])
    if source.is_dir():
        return _list_folder_images(source)
    if is_tar(source.name):
        return _list_tar_images(source)
    if is_table(source.name) and source.is_file():
        return find_in_tables(str(source.resolve()), source.resolve().parent, [source.name])
    if is_video(source.name) and source.is_file():
        return find_in_video(source, every_seconds)
    if not source.is_file() or has_image_ending(source.name) or explain_no_decoder(source.name):
        return find_images(source)
    if is_json(source.name):
        return _find_any(read_json_list(source), every_seconds)
    try:
        return _from_list(source.read_bytes(), str(images))
    except OSError as error:
        raise InputError(f"the list {images} cannot be read ({error.strerror}); check its permissions.") from error


def open_root(address: str, names: Sequence[str]) -> ImageRoot:
    """Return the root of an earlier `ImageList`.

    Args:
        address: `str(root)`.
        names: Some of its names.

    Raises:
        InputError: The images are no longer there.
    """
    if is_url(address):
        from fastcomus.images.remote_images import open_remote_root

        return open_remote_root(address, names)
    if is_lance_table(Path(address)):
        return ImageTables(address, os.path.dirname(address))
    if is_video(address) and os.path.isfile(address):
        return VideoFrames(address)
    is_own_file = is_tar(address) or is_table(address)
    folder = address if os.path.isdir(address) or not is_own_file else _find_tar_folder(address)
    if not os.path.isdir(folder):
        raise InputError(
            f"the images of this run lay in {address}, which is no longer there; put them back, or "
            "say where they lie now with --images DIR."
        )
    table = Path(folder, names[0]).parent if names and is_in_table(names[0]) else None
    if table and (is_lance_table(table) or not table.is_dir()):
        return ImageTables(address, folder)
    shard = split_name(names[0])[0] if names else ""
    # A folder may be called like a tar; then images in it are files.
    return TarShards(address, folder) if shard and not os.path.isdir(f"{folder}/{shard}") else Path(folder)


def _list_folder_images(folder: Path) -> ImageList:
    """List the images of a folder; if it has none, those in its tars, or else in its tables."""
    try:
        return find_images(folder)
    except NoImages:
        tars, skipped = find_files(folder, is_tar)
        tables, _ = find_files(folder, is_table)
        tables += sorted(one.name for one in folder.iterdir() if is_lance_table(one))
        if tables and not tars:
            return find_in_tables(str(folder.resolve()), folder.resolve(), tables)
        if not tars:
            raise
        address = str(folder.resolve())
        return find_in_shards(address, address, tars, skipped)


def _list_tar_images(pattern: Path) -> ImageList:
    address = os.path.abspath(pattern)
    folder = _find_tar_folder(address)
    paths = [address]
    if not os.path.lexists(address):
        paths = [path for one in expand_braces(address) for path in _find_matching(one)]
    if not any(os.path.lexists(path) for path in paths):
        raise InputError(
            f"{pattern} is no tar that is there; give a tar, a folder of tars, or a pattern of their names."
        )
    return find_in_shards(address, folder, [os.path.relpath(path, folder) for path in paths])


def _find_matching(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True) if has_wildcard(pattern) else [pattern]


def _find_tar_folder(address: str) -> str:
    """Return the folder that names of images in tars are relative to."""
    return os.path.dirname(address) if os.path.lexists(address) else get_fixed_folder(address)


def _from_list(content: bytes, shown: str) -> ImageList:
    if b"\0" in content:
        raise InputError(f"{shown} is neither an image nor a list of paths; give a folder, an image or text.")
    try:
        lines = [os.fsdecode(line.rstrip(b"\r")) for line in content.removeprefix(codecs.BOM_UTF8).split(b"\n")]
    except UnicodeDecodeError as error:  # on Windows, where paths are text
        raise InputError(f"{shown} is not UTF-8 ({error.reason}); save it as such.") from error
    given = sorted({line.strip() for line in lines if line.strip()})
    if not given:
        raise InputError(f"{shown} names no image; give one path or URL a line.")
    if any(is_url(line) for line in given):
        return _from_urls(given, shown)
    paths = sorted({os.path.abspath(_choose_path(line)) for line in lines if line.strip()})
    root = find_common_folder(paths)
    names, skipped = [], []
    for path in paths:
        name = Path(path).relative_to(root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            skipped.append(Skipped(escape_invalid_utf8(name), "name is not valid UTF-8", "rename it to use it"))
            continue
        if os.path.isfile(path):
            names.append(name)
        else:
            skipped.append(
                Skipped(name, "not a regular file" if os.path.exists(path) else "unreadable", _explain_missing(path))
            )
    if not names:
        first = f"{skipped[0].image} ({skipped[0].detail})"
        raise InputError(f"none of the {len(paths)} paths in {shown} is a file, such as {first}; give paths from here.")
    return ImageList(Path(root), tuple(sorted(names)), tuple(skipped))


def _choose_path(line: str) -> str:
    """Return a line as it is if that is there, else without the spaces around it."""
    return line if line == line.strip() or os.path.exists(line) else line.strip()


def find_common_folder(paths: Sequence[str], kind: Any = os.path) -> str:
    """Return the deepest folder that holds all of some files.

    Args:
        paths: Absolute paths of files.
        kind: `posixpath` or `ntpath`; by default this system's.

    Raises:
        InputError: There is none, as on two drives of Windows.
    """
    try:
        return str(kind.commonpath([kind.dirname(path) for path in paths]))
    except ValueError as error:
        raise InputError(f"{paths[0]} and {paths[-1]} lie on different drives; label each drive alone.") from error


def _from_urls(lines: Sequence[str], shown: str) -> ImageList:
    from fastcomus.images.remote_images import find_addresses

    if not all(is_url(line) for line in lines):
        raise InputError(f"{shown} has paths as well as URLs; give a list of each.")
    return find_addresses(lines, shown)


def _explain_missing(path: str) -> str:
    return "a folder, pipe, socket or device" if os.path.exists(path) else "the file does not exist"
