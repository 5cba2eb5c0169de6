"""Tars as strangers make them: each holds good.png, which must be found where the headers before it are whole."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable

MEMBER = b"\x89PNG good"


def packed(*members: tuple[str, bytes], layout: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:", format=layout) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> bytes:
    """One member that is no file, without the end of an archive."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member.tobuf()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def _with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def negative(name: str) -> bytes:
    """A header whose size is less than nothing, in base 256."""
    block = bytearray(header(name, 0))
    block[124:136] = (-1024).to_bytes(12, "big", signed=True)
    return _with_checksum(block)


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    body = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest)
        while length != len(str(length)) + len(rest):
            length = len(str(length)) + len(rest)
        body += str(length).encode() + rest
    return header("pax", len(body), kind) + body + bytes(-len(body) % 512)


GOOD = packed(("good.png", MEMBER))
END = bytes(1024)
TB = 2**40

UNSAFE, NO_FILE, CUT, DAMAGED = "unsafe name", "not a regular file", "truncated", "damaged archive"
NOT_UTF8 = "name is not valid UTF-8"

# What it is -> its bytes, whether good.png is found, and the reasons that are told.
HOSTILE: dict[str, tuple[bytes, bool, tuple[str, ...]]] = {
    "absolute": (packed(("/etc/evil.png", b"x"), ("good.png", MEMBER)), True, (UNSAFE,)),
    "leads out": (packed(("../../evil.png", b"x"), ("good.png", MEMBER)), True, (UNSAFE,)),
    "leads out in the middle": (packed(("a/../../evil.png", b"x"), ("good.png", MEMBER)), True, (UNSAFE,)),
    "no character of a path": (pax({"path": "evil\0.png"}) + header("x.png", 0) + GOOD, True, (UNSAFE,)),
    "endless name": (packed(("x/" * 3000 + "evil.png", b"x"), ("good.png", MEMBER)), True, (UNSAFE,)),
    "not UTF-8": (packed(("\udce9.png", b"x"), layout=tarfile.GNU_FORMAT)[:1024] + GOOD, True, (NOT_UTF8,)),
    "twice": (packed(("good.png", MEMBER), ("./good.png", b"evil")), True, ("name occurs twice",)),
    "a file as a folder": (packed(("good.png", MEMBER), ("good.png/evil.png", b"x")), True, (UNSAFE,)),
    "in the place of a mask": (packed(("good.png", MEMBER), ("good.png.png/evil.png", b"x")), True, (UNSAFE,)),
    "symbolic link": (special("evil.png", tarfile.SYMTYPE, "/etc/passwd") + GOOD, True, (NO_FILE,)),
    "hard link": (special("evil.png", tarfile.LNKTYPE, "good.png") + GOOD, True, (NO_FILE,)),
    "device": (special("evil.png", tarfile.CHRTYPE) + GOOD, True, (NO_FILE,)),
    "pipe": (special("evil.png", tarfile.FIFOTYPE) + GOOD, True, (NO_FILE,)),
    "sparse": (special("evil.png", tarfile.GNUTYPE_SPARSE) + GOOD, True, (NO_FILE,)),
    "unknown kind": (header("evil.png", 0, b"Z") + GOOD, True, (NO_FILE,)),
    "a terabyte": (GOOD[:1024] + header("evil.png", TB) + END, True, (CUT, DAMAGED)),
    "a terabyte by pax": (GOOD[:1024] + pax({"size": str(TB)}) + header("evil.png", 0) + END, True, (CUT, DAMAGED)),
    "a terabyte of name": (GOOD[:1024] + header("x", TB, tarfile.GNUTYPE_LONGNAME) + END, True, (DAMAGED,)),
    "a terabyte of pax": (GOOD[:1024] + header("x", TB, tarfile.XHDTYPE) + END, True, (DAMAGED,)),
    "less than nothing": (GOOD[:1024] + negative("evil.png") + END, True, (DAMAGED,)),
    "less than nothing by pax": (GOOD[:1024] + pax({"size": "-2048"}) + header("x.png", 0) + END, True, (DAMAGED,)),
    "endless pax": (GOOD[:1024] + pax({"comment": "x"}) * 3000 + END, True, (DAMAGED,)),
    "compressed": (b"\x1f\x8b\x08" + bytes(600), False, ("compressed archive",)),
    "no tar": (b"<html>not found</html>" * 100, False, (DAMAGED,)),
    "empty": (b"", False, (DAMAGED,)),
    "only zeros": (bytes(10240), False, ()),
    "cut in a member": (packed(("good.png", MEMBER), ("cut.png", bytes(5000)))[:2048], True, (CUT, DAMAGED)),
    "cut in a header": (packed(("good.png", MEMBER), ("cut.png", bytes(5000)))[:1300], True, (DAMAGED,)),
    "flipped in a header": (GOOD[:1024] + b"\x01" + packed(("x.png", b"x"))[1:], True, (DAMAGED,)),
}  # fmt: skip


def flipped(rng: random.Random) -> bytes:
    """A tar with some bits changed, most of them in its headers."""
    content = bytearray(packed(*((f"{index}.png", rng.randbytes(rng.randrange(700))) for index in range(6))))
    for _ in range(rng.choice([1, 2, 8])):
        place = rng.randrange(len(content))
        content[place // 512 * 512 + rng.randrange(400) if rng.random() < 0.7 else place] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut(rng: random.Random) -> bytes:
    content = packed(*((f"{index}.png", rng.randbytes(rng.randrange(700))) for index in range(6)))
    return content[: rng.randrange(len(content))]


MUTATED: tuple[Callable[[random.Random], bytes], ...] = (flipped, cut)
