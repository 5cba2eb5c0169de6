"""Files as they come from the web and from broken disks: made and mutated, the same for the same seed.

Used by tests/images/test_hostile_folders.py and bench/faults.py.
"""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "gif": "GIF", "bmp": "BMP"}


def good_image(rng: random.Random) -> Image.Image:
    """A bright object on a dull ground, so that it has a salient region."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 6, (SIDE, SIDE, 3))
    pixels = np.full((SIDE, SIDE, 3), (90.0, 120.0, 90.0)) + noise
    x, y, side = rng.randrange(20, 50), rng.randrange(20, 50), rng.randrange(16, 30)
    pixels[y : y + side, x : x + side] = [rng.randrange(256) for _ in range(3)]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def good_file(rng: random.Random) -> tuple[str, bytes]:
    """An ending and a whole file."""
    ending = rng.choice(sorted(FORMATS))
    return ending, encoded(good_image(rng), FORMATS[ending])


def truncated(rng: random.Random) -> tuple[str, bytes]:
    ending, content = good_file(rng)
    return ending, content[: rng.randrange(len(content))]


def flipped(rng: random.Random) -> tuple[str, bytes]:
    """Some bits, half of the times in the header."""
    ending, content = good_file(rng)
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        place = rng.randrange(min(len(changed), 200) if rng.random() < 0.5 else len(changed))
        changed[place] ^= 1 << rng.randrange(8)
    return ending, bytes(changed)


def spliced(rng: random.Random) -> tuple[str, bytes]:
    """A part is missing, doubled, or another file's."""
    (ending, content), (_, other) = good_file(rng), good_file(rng)
    first, second = sorted(rng.randrange(len(content)) for _ in range(2))
    middle = rng.choice([b"", content[first:second] * 2, other, bytes(second - first)])
    return ending, content[:first] + middle + content[second:]


def wrong_ending(rng: random.Random) -> tuple[str, bytes]:
    content = good_file(rng)[1]
    texts = [b"<html>not found</html>", b"%PDF-1.7\n", b"\x7fELF" + bytes(60), b"", b"#!/bin/sh\nexit 1\n", b"\xff\xd8"]
    return rng.choice(sorted(FORMATS)), rng.choice([content, *texts])


def png(width: int, height: int, bit_depth: int, colour_type: int, data: bytes, **chunks: bytes) -> bytes:
    """Written by hand: the header may promise anything."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), body) for name, body in chunks.items())
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bomb(rng: random.Random) -> tuple[str, bytes]:
    """Few bytes that promise, or unpack to, gigabytes."""
    side = rng.choice([20_000, 65_535, 2**31 - 1])
    kind = rng.randrange(5)
    if kind == 0:
        return "png", png(side, side, 8, 2, zlib.compress(bytes(10**6)))
    if kind == 1:  # text that unpacks to 64 MiB, before the pixels
        text = b"Comment\0\0" + zlib.compress(bytes(2**26), 9)
        return "png", png(8, 8, 8, 0, zlib.compress(bytes(72)), zTXt=text)
    if kind == 2:  # more pixels than the header says
        return "png", png(8, 8, 8, 0, zlib.compress(bytes(2**24), 9))
    if kind == 3:
        size = struct.pack("<HH", 65_535, 65_535)
        screen = b"GIF89a" + size + b"\x80\0\0" + bytes(6)
        return "gif", screen + b"," + bytes(4) + size + b"\0\x02\x02\x44\x01\0;"
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, 2**31 - 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return "tif", b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def odd_shape(rng: random.Random) -> tuple[str, bytes]:
    size = rng.choice([(1, 1), (65_000, 1), (1, 65_000), (1, 2), (3, 1), (2_000, 3)])
    colour = tuple(rng.randrange(256) for _ in range(3))
    ending = rng.choice(["png", "jpg", "tif", "bmp"])
    return ending, encoded(Image.new("RGB", size, colour), FORMATS[ending])


def odd_mode(rng: random.Random) -> tuple[str, bytes]:
    image = good_image(rng)
    grey16 = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    choices: list[Callable[[], tuple[str, bytes]]] = [
        lambda: ("png", encoded(grey16, "PNG")),
        lambda: ("tif", encoded(grey16, "TIFF")),
        lambda: ("jpg", encoded(image.convert("CMYK"), "JPEG")),
        lambda: ("tif", encoded(image.convert("CMYK"), "TIFF", compression="tiff_lzw")),
        lambda: ("tif", encoded(image.convert("F"), "TIFF")),
        lambda: ("tif", encoded(image.convert("LAB"), "TIFF")),
        lambda: ("png", encoded(image.convert("1"), "PNG")),
        lambda: ("png", encoded(image.convert("RGBA"), "PNG")),
        lambda: ("png", encoded(image.convert("P"), "PNG", transparency=rng.randrange(256))),
        lambda: ("png", encoded(image.convert("LA"), "PNG")),
    ]
    return rng.choice(choices)()


def animated(rng: random.Random) -> tuple[str, bytes]:
    ending = rng.choice(["gif", "webp", "png", "tif"])
    frames = [good_image(rng) for _ in range(3)]
    content = encoded(frames[0], FORMATS[ending], save_all=True, append_images=frames[1:])
    return ending, content[: rng.randrange(len(content) // 2, len(content) + 1)]


def broken_metadata(rng: random.Random) -> tuple[str, bytes]:
    """EXIF and ICC profiles of random bytes, and EXIF that points outside of itself."""
    junk = rng.randbytes(rng.randrange(1, 400))
    exif = rng.choice([b"Exif\0\0" + junk, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + junk, b"Exif\0\0MM\0*\xff\xff\xff\xff"])
    ending = rng.choice(["jpg", "png", "webp"])
    return ending, encoded(good_image(rng), FORMATS[ending], exif=exif, icc_profile=junk)


KINDS = (
    truncated, flipped, flipped, spliced, wrong_ending, bomb, odd_shape, odd_mode, animated, broken_metadata
)  # fmt: skip
NAMES = (
    "new\nline", 'quo"te', "it's", "..dots..", "semi;colon&amp", "<b>bold", "tab\tbed", " spaces ", "-rf", "%s%n",
    "back\\slash", "{brace}", "$(id)", "ünï-图片", "\u202eright to left", "x" * 240, "図" * 80, "CON", "a.jpg.png",
)  # fmt: skip


def write_hostile(root: Path, count: int, seed: int) -> dict[str, int]:
    """`count` files and a few things that are no files under `root`; how many of each kind."""
    rng = random.Random(seed)
    made: dict[str, int] = {}
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        ending, content = kind(rng)
        folder = root / f"{index // 500:03d}" / rng.choice(["", "sub", 'o\'ne "two"\nthree', "..."])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _name(rng, index, ending)).write_bytes(content)
        made[kind.__name__] = made.get(kind.__name__, 0) + 1
    made["no files"] = _write_no_files(root / "no-files")
    return made


def write_good(root: Path, count: int, seed: int) -> None:
    """As many files that are all as they should be."""
    rng = random.Random(seed)
    for index in range(count):
        ending, content = good_file(rng)
        folder = root / f"{index // 500:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:06d}.{ending}").write_bytes(content)


def _name(rng: random.Random, index: int, ending: str) -> str:
    ending = rng.choice([ending, ending.upper()])
    if rng.random() < 0.7:
        return f"{index:06d}.{ending}"
    stem = rng.choice(NAMES).encode()[: 255 - len(f"-{index}.{ending}")].decode(errors="ignore")
    return f"{stem}-{index}.{ending}"


def _write_no_files(folder: Path) -> int:
    """Pipes, sockets, devices, links in circles, to nowhere and out of the tree; names that are not UTF-8."""
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path is short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
    for name, target in (
        ("device.jpg", "/dev/zero"),
        ("random.png", "/dev/random"),
        ("terminal.gif", "/dev/tty"),
        ("nowhere.jpg", "absent.jpg"),
        ("self.jpg", "self.jpg"),
        ("one.jpg", "two.jpg"),
        ("two.jpg", "one.jpg"),
        ("circle", "."),
        ("up", ".."),
        ("pipe-link.jpg", "pipe.jpg"),
        ("memory.jpg", "/proc/self/mem"),
    ):
        (folder / name).symlink_to(target)
    (folder / "folder.jpg").mkdir()
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(b"\xff\xd8")
    return len(list(folder.iterdir()))
