"""Finds where images are in a tar by reading its headers alone; what is damaged or hostile gets a reason."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from fastcomus.errors import escape_invalid_utf8
from fastcomus.images.formats import NO_DECODER, explain_no_decoder, has_image_ending
from fastcomus.images.found import Skipped, UnreadableImage
from fastcomus.images.names import select_safe_names

DAMAGED = "damaged archive"
COMPRESSED = "compressed archive"
_COMPRESSED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_LONGEST_HEADER = 2**20  # bytes; real ones, long names included, have some thousand

ReadRange = Callable[[int, int], bytes]


@dataclass(frozen=True)
class TarIndex:
    """What a tar holds.

    Attributes:
        members: Offset and size in bytes by name, of each image that is whole.
        skipped: What cannot be used; the name "" stands for the tar itself if only a part of it could be read.
    """

    members: dict[str, tuple[int, int]]
    skipped: tuple[Skipped, ...]


def index_tar(read_range: ReadRange, size: int, block: int) -> TarIndex:
    """Index a tar. Whatever it holds, this ends, needs memory for the names alone, and raises only what reading does.

    Args:
        read_range: Returns `length` bytes from `offset`, for any range inside the tar.
        size: Bytes of the tar.
        block: Bytes to read at a time while looking for headers; longer contents between them are not read.
    """
    offsets: dict[str, tuple[int, int]] = {}
    names: list[str] = []
    skipped: list[Skipped] = []
    headers = _Headers(read_range, size, block)
    if size and headers.peek(0).startswith(_COMPRESSED_STARTS):
        return TarIndex({}, (Skipped("", COMPRESSED, "unpack it, for images are read from any place in it"),))
    try:
        for member in _iterate_members(headers, size):
            name = _strip_dots(member.name)
            if not has_image_ending(name.rpartition("/")[2]) or member.isdir():
                if member.isreg() and (why := explain_no_decoder(name.rpartition("/")[2])):
                    skipped.append(Skipped(escape_invalid_utf8(name), NO_DECODER, why))
                continue
            if not member.isreg() or member.issparse():
                skipped.append(Skipped(escape_invalid_utf8(name), "not a regular file", _describe_kind(member)))
            elif member.offset_data + member.size > size:
                there = max(0, size - member.offset_data)
                skipped.append(
                    Skipped(escape_invalid_utf8(name), "truncated", f"{there} of {member.size} bytes are in the tar")
                )
            else:
                names.append(name)
                offsets.setdefault(name, (member.offset_data, member.size))
    except _Damaged as error:
        skipped.append(Skipped("", DAMAGED, f"{error}; {len(names)} images before it are used"))
    kept, refused = select_safe_names(names)
    return TarIndex({name: offsets[name] for name in kept}, (*skipped, *refused))


class _Damaged(Exception):  # noqa: N818 - named after what was found
    """The tar cannot be read on. One line."""


def _iterate_members(headers: _Headers, size: int) -> Iterator[tarfile.TarInfo]:
    """Every member, in order. Raises _Damaged where no header follows and the tar has not ended."""
    place = -1
    try:
        tar = tarfile.open(fileobj=cast(Any, headers), mode="r:")  # noqa: SIM115 - there is no file to close
        while (member := tar.next()) is not None:
            cast(Any, tar).members.clear()  # it would keep all of them
            if member.offset <= place or member.size < 0:  # a negative size leads back, for ever
                raise _Damaged(f"a header at byte {member.offset} leads back")
            place = member.offset
            yield member
    except (_Damaged, UnreadableImage):
        raise
    except Exception as error:  # as with images: tarfile raises many types on damaged headers
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _Damaged(f"{reason}, after byte {max(place, 0)}") from error
    # To tarfile a damaged header behind the first is the end.
    if tar.offset > size:
        raise _Damaged(f"it ends at byte {size}, inside of a member")
    if headers.peek(tar.offset).strip(b"\0"):
        raise _Damaged(f"at byte {tar.offset} stands no header")


class _Headers:
    """The file that tarfile reads: a block of the tar ahead, and no more than a header at once."""

    def __init__(self, read_range: ReadRange, size: int, block: int) -> None:
        self._read_range, self._size, self._block = read_range, size, block
        self._place = self._start = 0
        self._ahead = b""

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        if place < 0:
            raise _Damaged("a header leads back")
        self._place = place
        return place

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LONGEST_HEADER:
            raise _Damaged(f"a header at byte {self._place} claims {count} bytes")
        content = self._get_range(self._place, count)
        self._place += len(content)
        return content

    def peek(self, place: int) -> bytes:
        """The 512 bytes from `place` on, or what there is of them."""
        return self._get_range(place, tarfile.BLOCKSIZE)

    def _get_range(self, place: int, count: int) -> bytes:
        count = min(count, max(0, self._size - place))
        if not count:
            return b""
        if not self._start <= place <= place + count <= self._start + len(self._ahead):
            length = min(max(count, self._block), self._size - place)
            self._ahead, self._start = self._read_range(place, length), place
        return self._ahead[place - self._start : place - self._start + count]


def _strip_dots(name: str) -> str:
    """`./a/b.jpg`, as many tars have it, is `a/b.jpg`. What else is odd about a name stays, to be told."""
    parts = name.split("/")
    return "/".join(part for place, part in enumerate(parts) if part != "." and (part or place == 0))


def _describe_kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    return "sparse" if member.issparse() else "a pipe, device or something unknown"
