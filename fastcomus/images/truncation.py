"""Recognises files that end too early by their bytes."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import BinaryIO


def is_jpeg_cut_short(file: BinaryIO) -> bool:
    """Whether a JPEG has no end marker after its pixels, as after a broken download (missing parts decode as grey)."""
    file.seek(-2, os.SEEK_END)
    if file.read(2) == b"\xff\xd9":
        return False
    file.seek(0)
    data = file.read()
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1] != 0xDA:  # segments up to the first scan
        is_fill = data[place + 1] == 0xFF
        place += 1 if is_fill else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data.find(b"\xff\xd9", place) < 0


def _is_cut_short(open_file: Callable[[], BinaryIO]) -> bool:
    """Whether a file that could not be decoded lacks the end that its format promises."""
    try:
        with open_file() as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - 12))
            tail = file.read()
            file.seek(0)
            head = file.read(12)
            if head.startswith((b"II*\0", b"MM\0*")):
                return _is_tiff_directory_cut_short(file, "<" if head.startswith(b"I") else ">", size_bytes)
    except (OSError, ValueError, struct.error):
        return False
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 > size_bytes
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") > size_bytes
    ends = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82", b"GIF8": b";"}
    return any(head.startswith(start) and not tail.endswith(end) for start, end in ends.items())


def _is_tiff_directory_cut_short(file: BinaryIO, order: str, size_bytes: int) -> bool:
    file.seek(4)
    start = struct.unpack(order + "I", file.read(4))[0]
    file.seek(start)
    count_bytes = file.read(2)
    entries = file.read(12 * struct.unpack(order + "H", count_bytes)[0]) if len(count_bytes) == 2 else b""
    if not entries or len(entries) % 12:
        return bool(start + 2 + len(entries) >= size_bytes)
    value_bytes = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # by TIFF type; the others take 1
    ends = []
    for _, kind, count, offset in struct.iter_unpack(order + "HHII", entries):
        length = count * value_bytes.get(kind, 1)
        ends.append(offset + length if length > 4 else 0)  # up to 4 bytes stand in the entry itself
    return bool(max(ends) > size_bytes)
