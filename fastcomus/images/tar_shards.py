"""Images in tars: found by an index of each, read from where they lie, never unpacked."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fastcomus.errors import InputError, escape_invalid_utf8
from fastcomus.images.addresses import is_url, join_address
from fastcomus.images.found import LOST, ImageList, Skipped, UnreadableImage
from fastcomus.images.names import UNSAFE, explain_unsafe_name
from fastcomus.images.roots import StoredImage, StoredImages
from fastcomus.images.tar_index import COMPRESSED, TarIndex, index_tar

ENDING = ".tar"
_COMPRESSED_ENDINGS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4", ".tgz", ".tbz2")
_LOCAL_BLOCK = 4096  # bytes read at once while looking for headers
_REMOTE_BLOCK = 2**20  # a request costs as much as some hundred kilobytes
_INDEXED_AT_ONCE = 8  # archives


class Archive(Protocol):
    """One file of which ranges can be read."""

    @property
    def block(self) -> int:
        """Bytes worth reading at once."""

    def get_state(self) -> tuple[int, Any]:
        """Return the size in bytes and a JSON value that changes with the file. Raises UnreadableImage."""

    def read(self, offset: int, length: int, state: tuple[int, Any]) -> bytes:
        """Return `length` bytes from `offset`, a range inside the file. Threads may call this at once.

        Raises:
            UnreadableImage: The bytes cannot be read; LOST if the file is no longer in `state`.
        """


@dataclass(frozen=True)
class TarShards(StoredImages):
    """Images in tars, named SHARD/MEMBER, where SHARD ends in .tar.

    Attributes:
        address: What the user gave, such as a pattern of names; it is never expanded again.
        folder: The path or URL of the folder that the tars are in.
    """

    address: str
    folder: str

    def __truediv__(self, name: str) -> StoredImage:
        return _Member(self.folder, name)

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class _Member(StoredImage):
    folder: str
    name: str

    def read_encoded(self, most_bytes: int) -> bytes:
        shard, member = split_name(self.name)
        archive = _open_archive(self.folder, shard)
        state, index = _get_index(archive)
        if member not in index.members:
            raise UnreadableImage(LOST, "the archive does not hold it (any more)")
        offset, size = index.members[member]
        if size > most_bytes:
            raise UnreadableImage("too large", f"{size} bytes; {most_bytes} are the most that max_pixels may take")
        return archive.read(offset, size, state) if size else b""

    def __str__(self) -> str:
        return join_address(self.folder, self.name)


def is_tar(path: str) -> bool:
    """Whether a file is taken for a tar by its ending; compressed ones are, so that an error can name them."""
    return path.lower().endswith((ENDING, *_COMPRESSED_ENDINGS))


def split_name(name: str) -> tuple[str, str]:
    """Split SHARD/MEMBER into tar and member; ("", name) if no folder in it is called like a tar."""
    parts = name.split("/")
    place = next((i for i, part in enumerate(parts[:-1], 1) if part.lower().endswith(ENDING)), 0)
    return "/".join(parts[:place]), "/".join(parts[place:])


def find_in_shards(address: str, folder: str, shards: Iterable[str], left_out: Iterable[Skipped] = ()) -> ImageList:
    """List the images in tars.

    Args:
        address: What the user gave.
        folder: The path or URL of the folder that the tars are in.
        shards: The tars' paths below it.
        left_out: What was skipped before.

    Raises:
        InputError: No tar holds an image.
    """
    skipped = list(left_out)
    names: list[str] = []
    stamps: dict[str, Any] = {}
    usable = []
    for shard in sorted(set(shards)):
        why = explain_unsafe_name(shard) or ("a folder called like a tar" if split_name(shard)[0] else "")
        if why:
            skipped.append(Skipped(escape_invalid_utf8(shard), UNSAFE, why))
        elif not shard.lower().endswith(ENDING):
            skipped.append(Skipped(escape_invalid_utf8(shard), COMPRESSED, "unpack it to .tar"))
        else:
            usable.append(shard)
    with ThreadPoolExecutor(_INDEXED_AT_ONCE) as pool:
        for shard, found in zip(
            usable, pool.map(lambda shard: _refresh_index(_open_archive(folder, shard)), usable), strict=True
        ):
            if isinstance(found, UnreadableImage):
                skipped.append(Skipped(escape_invalid_utf8(shard), found.reason, found.detail))
                continue
            (size, tag), index = found
            names += [f"{shard}/{member}" for member in index.members]
            stamps |= {f"{shard}/{member}": [*place, size, tag] for member, place in index.members.items()}
            skipped += [replace(one, image=f"{shard}/{one.image}".rstrip("/")) for one in index.skipped]
    if not names:
        why = f"; {len(skipped)} left out, such as {skipped[0].image} ({skipped[0].reason})" if skipped else ""
        raise InputError(f"{escape_invalid_utf8(address)} holds no tar with an image in it that can be used{why}.")
    return ImageList(
        TarShards(address, folder), tuple(sorted(names)), tuple(sorted(skipped, key=lambda one: one.image)), stamps
    )


@dataclass(frozen=True)
class _LocalArchive:
    path: Path
    block: int = _LOCAL_BLOCK

    def get_state(self) -> tuple[int, Any]:
        try:
            return _get_file_state(self.path.stat())
        except OSError as error:
            raise UnreadableImage(LOST, error.strerror or str(error)) from error

    def read(self, offset: int, length: int, state: tuple[int, Any]) -> bytes:
        try:
            with self.path.open("rb") as file:  # anew each time: threads share no place in it
                if _get_file_state(os.fstat(file.fileno())) != state:
                    raise UnreadableImage(LOST, "the archive changed since it was listed")
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise UnreadableImage(LOST, error.strerror or str(error)) from error
        if len(content) < length:
            raise UnreadableImage(LOST, "the archive ends too early")
        return content


def _get_file_state(status: os.stat_result) -> tuple[int, Any]:
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a regular file", "a folder, pipe, socket or device")
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class _RemoteArchive:
    url: str
    block: int = _REMOTE_BLOCK

    def get_state(self) -> tuple[int, Any]:
        from fastcomus.images import remote_files

        size, tag = remote_files.fetch_state(self.url)
        if size is None:
            raise UnreadableImage("unreadable", "the server does not tell how long the file is; download it")
        return size, tag

    def read(self, offset: int, length: int, state: tuple[int, Any]) -> bytes:
        from fastcomus.images import remote_files

        return remote_files.read_range(self.url, offset, length, state[1])


def _open_archive(folder: str, shard: str) -> Archive:
    return _RemoteArchive(join_address(folder, shard)) if is_url(folder) else _LocalArchive(Path(folder, shard))


_indexes: dict[Archive, tuple[tuple[int, Any], TarIndex]] = {}
_index_locks: dict[Archive, threading.Lock] = {}
_locks_lock = threading.Lock()


def _get_index(archive: Archive) -> tuple[tuple[int, Any], TarIndex]:
    """Return state and index of an archive, made once in this process by the thread that asks first."""
    if archive not in _indexes:
        with _locks_lock:
            lock = _index_locks.setdefault(archive, threading.Lock())
        with lock:
            if archive not in _indexes:
                _indexes[archive] = _make_index(archive)
    return _indexes[archive]


def _make_index(archive: Archive) -> tuple[tuple[int, Any], TarIndex]:
    state = archive.get_state()
    return state, index_tar(lambda offset, length: archive.read(offset, length, state), state[0], archive.block)


def _refresh_index(archive: Archive) -> tuple[tuple[int, Any], TarIndex] | UnreadableImage:
    """Return state and index as they are now."""
    try:
        if archive in _indexes and _indexes[archive][0] == archive.get_state():
            return _indexes[archive]
        _indexes[archive] = _make_index(archive)
        return _indexes[archive]
    except UnreadableImage as error:
        return error
