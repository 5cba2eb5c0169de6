"""Images: what is found in a folder tree, and the exact pixels of every format, mode and kind of damage."""

import contextlib
import io
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from places import MSRC14

from fastcomus.errors import InputError
from fastcomus.images.folder import find_images
from fastcomus.images.found import UnreadableImage
from fastcomus.images.reading import read_image
from fastcomus.images.sizes import read_size

MAX_PIXELS = 1_000_000


def pattern(height: int = 30, width: int = 40) -> np.ndarray:
    """(height, width, 3) uint8, smooth, without symmetry."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), (x + 2 * y) % 256], 2).astype(np.uint8)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def read_bytes(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        pixels = read_image(Path(file.name), max_pixels)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    return pixels


def reason_of(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_bytes(data, max_pixels)
    assert caught.value.detail and "\n" not in caught.value.detail
    return caught.value.reason


def raw_png(width: int, height: int, bit_depth: int, colour_type: int, rows: list[bytes], **chunks: bytes) -> bytes:
    """A PNG written by hand, for depths and chunks that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    extra = b"".join(chunk(name.encode(), body) for name, body in chunks.items())
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def grey_tiff(values: np.ndarray, order: str, photometric: int, sample_format: int, bits: int) -> bytes:
    """A one-strip uncompressed grey TIFF written by hand; `values` (H, W) already in the byte order."""
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1)]
    tags += [(278, height), (279, values.nbytes), (339, sample_format)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, value in tags:
        entries += struct.pack(order + "HHII", tag, 4, 1, start if tag == 273 else value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0" + values.tobytes()


# ------------------------------------------------------------------ pixels of every format and mode


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_lossless_rgb_is_exact(file_format: str, options: dict[str, Any]) -> None:
    pixels = pattern()
    assert np.array_equal(read_bytes(encoded(Image.fromarray(pixels), file_format, **options)), pixels)


def test_jpeg_is_near_and_content_decides_not_the_ending(tmp_path: Path) -> None:
    pixels = pattern()
    data = encoded(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0)
    assert np.abs(read_bytes(data).astype(int) - pixels).mean() < 4
    (tmp_path / "named-as.png").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "named-as.png", MAX_PIXELS), read_bytes(data))


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "TIFF", "BMP"])
def test_palette_grey_and_one_bit(file_format: str) -> None:
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) % 5
    colours = np.array([[9, 8, 7], [255, 0, 1], [0, 250, 3], [4, 5, 240], [128, 127, 126]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.ravel().tolist())
    assert image.mode == "P"
    assert np.array_equal(read_bytes(encoded(image, file_format)), colours[indices])

    grey = np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(read_bytes(encoded(Image.fromarray(grey), file_format)), np.dstack([grey] * 3))

    bits = (np.arange(12).reshape(3, 4) % 3 == 0).astype(np.uint8) * 255
    one_bit = Image.fromarray(bits).convert("1")
    assert np.array_equal(read_bytes(encoded(one_bit, file_format)), np.dstack([bits] * 3))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_over_white(file_format: str) -> None:
    colour = pattern(16, 16)
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    data = encoded(Image.fromarray(np.dstack([colour, alpha])), file_format, **options)
    weight = alpha[:, :, None] / 255
    expected = np.floor(colour * weight + 255 * (1 - weight) + 0.5)
    assert np.array_equal(read_bytes(data), expected)


def test_grey_with_alpha_and_colour_keys() -> None:
    data = encoded(Image.fromarray(np.array([[[10, 255], [10, 0], [100, 51]]], np.uint8), "LA"), "PNG")
    assert read_bytes(data)[0].tolist() == [[10] * 3, [255] * 3, [224] * 3]

    row = bytes([1, 2, 3, 40, 50, 60])
    key = struct.pack(">3H", 40, 50, 60)
    assert read_bytes(raw_png(2, 1, 8, 2, [row], tRNS=key))[0].tolist() == [[1, 2, 3], [255, 255, 255]]
    grey = raw_png(2, 1, 8, 0, [bytes([7, 9])], tRNS=struct.pack(">H", 9))
    assert read_bytes(grey)[0].tolist() == [[7] * 3, [255] * 3]
    grey_16 = raw_png(2, 1, 16, 0, [struct.pack(">2H", 0x0A01, 0x0A02)], tRNS=struct.pack(">H", 0x0A02))
    assert read_bytes(grey_16)[0].tolist() == [[10] * 3, [255] * 3]
    colour_16 = struct.pack(">6H", 0x0101, 0x0202, 0x0303, 0x2828, 0x3232, 0x3C3C)
    key = struct.pack(">3H", 0x2828, 0x3232, 0x3C3C)
    assert read_bytes(raw_png(2, 1, 16, 2, [colour_16], tRNS=key))[0].tolist() == [[1, 2, 3], [255] * 3]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 51])])
@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_palette_transparency(transparency: int | bytes, file_format: str) -> None:
    if file_format == "GIF" and isinstance(transparency, bytes):
        pytest.skip("GIF has one transparent index")
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 0, 100, 255])
    data = encoded(image, file_format, transparency=transparency)
    last = [0, 100, 255] if transparency == 1 else [204, 224, 255]
    assert read_bytes(data)[0].tolist() == [[10, 20, 30], [255, 255, 255], last]


def test_cmyk() -> None:
    ink = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255], [51, 0, 0, 51]]], np.uint8)
    expected = [[255] * 3, [0, 255, 255], [255, 0, 0], [0, 0, 0], [163, 204, 204]]
    tiff = read_bytes(encoded(Image.fromarray(ink, "CMYK"), "TIFF"))[0]
    assert np.abs(tiff.astype(int) - expected).max() <= 1
    # Pillow writes CMYK JPEGs the way Adobe does, inverted with an APP14 marker.
    patches = Image.fromarray(np.repeat(np.repeat(ink, 16, 0), 16, 1), "CMYK")
    jpeg = read_bytes(encoded(patches, "JPEG", quality=100, subsampling=0))[8, 8::16]
    assert np.abs(jpeg.astype(int) - expected).max() <= 3


def test_lab() -> None:
    from skimage.color import lab2rgb

    lab = np.array([[[50, 0, 0], [75, 20, -30], [30, -15, 25], [100, 0, 0]]], float)
    stored = np.stack([np.rint(lab[..., 0] * 2.55), lab[..., 1], lab[..., 2]], 2).astype(np.int64).astype(np.uint8)
    pixels = read_bytes(encoded(Image.fromarray(stored, "LAB"), "TIFF"))
    expected = lab2rgb(lab, illuminant="D50") * 255
    # scikit-image does not adapt D50 to sRGB's D65, so colours differ slightly; greys agree.
    assert np.abs(pixels[0, [0, 3]].astype(int) - [[119] * 3, [255] * 3]).max() <= 1
    assert np.abs(pixels - expected).max() < 45 and pixels[0, 1, 2] > pixels[0, 1, 1] > pixels[0, 2, 0]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey(file_format: str) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    expected = np.dstack([np.arange(256).reshape(16, 16)] * 3)
    assert np.array_equal(read_bytes(encoded(Image.fromarray(grey), file_format)), expected)


def test_16_bit_colour_agrees_with_16_bit_grey() -> None:
    values = np.array([0, 1, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF], ">u2")
    grey = read_bytes(raw_png(8, 1, 16, 0, [values.tobytes()]))
    colour = read_bytes(raw_png(8, 1, 16, 2, [np.repeat(values, 3).tobytes()]))
    opaque = np.stack([values, np.full_like(values, 0xFFFF)], 1).astype(">u2").tobytes()
    assert grey[0, :, 0].tolist() == [0, 0, 0, 1, 127, 128, 255, 255]
    assert np.array_equal(colour, grey)
    assert np.array_equal(read_bytes(raw_png(8, 1, 16, 4, [opaque])), grey)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_byte_orders_and_white_is_zero(order: str) -> None:
    values = np.array([[0, 257, 65535]], order + "u2")
    assert read_bytes(grey_tiff(values, order, 1, 1, 16))[0, :, 0].tolist() == [0, 1, 255]
    if order == "<":  # Pillow knows no big-endian one
        assert read_bytes(grey_tiff(values, order, 0, 1, 16))[0, :, 0].tolist() == [255, 254, 0]


def test_12_bit_tiff_uses_its_own_range() -> None:
    packed = np.frombuffer(bytes([0x00, 0x0F, 0xFF, 0x80, 0x01, 0x00]), np.uint8).reshape(1, 6)
    data = bytearray(grey_tiff(packed, "<", 1, 1, 12))
    struct.pack_into("<I", data, 8 + 2 + 8, 4)  # width: six bytes are four 12-bit samples
    assert read_bytes(bytes(data))[0, :, 0].tolist() == [0, 255, 128, 16]


def test_wide_integers_and_floats() -> None:
    def grey(values: list[float], dtype: str, sample_format: int) -> list[int]:
        array = np.array([values], dtype)
        return read_bytes(grey_tiff(array, "<", 1, sample_format, array.itemsize * 8))[0, :, 0].tolist()

    assert grey([0, 256, 65535], "<i4", 2) == [0, 1, 255]
    assert grey([-100, 0, 100], "<i4", 2) == [0, 128, 255]
    assert grey([0, 50_000, 100_000], "<i4", 2) == [0, 128, 255]
    assert grey([-32768, 32767], "<i2", 2) == [0, 255]
    assert grey([0, 0.2, 0.5, 1], "<f4", 3) == [0, 51, 128, 255]
    assert grey([0.2, 0.4], "<f4", 3) == [51, 102]
    assert grey([-5, 0, 5], "<f4", 3) == [0, 128, 255]
    assert grey([0, 255], "<f4", 3) == [0, 255]
    assert grey([np.nan, 0.2, np.inf, -np.inf], "<f4", 3) == [0, 51, 255, 0]
    assert grey([np.nan, np.nan], "<f4", 3) == [0, 0]
    assert grey([7, 7], "<f4", 3) == [0, 0]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame(file_format: str) -> None:
    first, second = np.full((8, 9, 3), 255, np.uint8), np.zeros((8, 9, 3), np.uint8)
    first[:4] = [255, 0, 0]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(
        Image.fromarray(first), file_format, save_all=True, append_images=[Image.fromarray(second)], **options
    )
    assert np.array_equal(read_bytes(data), first)


# ------------------------------------------------------------------ orientation

UPRIGHT = np.array([[1, 2, 3], [4, 5, 6]], np.uint8) * 40
# How the upright picture lies in the file, by EXIF tag 274: where row 0 and column 0 of the file are shown.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}


@pytest.mark.parametrize("orientation", list(STORED))
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "TIFF lzw", "JPEG"])
def test_orientation(orientation: int, file_format: str) -> None:
    stored = np.array(STORED[orientation], np.uint8) * 40
    scale = 16 if file_format == "JPEG" else 1  # whole JPEG blocks are exact enough
    image = Image.fromarray(stored.repeat(scale, 0).repeat(scale, 1)).convert("RGB")
    exif = Image.Exif()
    exif[274] = orientation
    name, _, compression = file_format.partition(" ")
    options = {"lossless": True} if name == "WEBP" else {"compression": "tiff_lzw"} if compression else {}
    pixels = read_bytes(encoded(image, name, exif=exif.tobytes(), **options))[scale // 2 :: scale, scale // 2 :: scale]
    assert pixels.shape == (2, 3, 3)
    assert np.abs(pixels[:, :, 1].astype(int) - UPRIGHT).max() <= (1 if name == "JPEG" else 0)


@pytest.mark.parametrize("orientation", list(STORED))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "GIF"])
def test_the_size_in_the_header_is_that_of_the_upright_pixels(
    orientation: int, file_format: str, tmp_path: Path
) -> None:
    if file_format not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {file_format}")
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / f"a.{file_format.lower()}"
    file.write_bytes(encoded(Image.new("RGB", (40, 30)), file_format, exif=exif.tobytes()))
    found = read_image(file, MAX_PIXELS).shape[:2]
    assert read_size(file, MAX_PIXELS) == found
    if file_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        assert found == ((40, 30) if orientation >= 5 else (30, 40))


def test_orientation_of_16_bit_grey() -> None:
    exif = Image.Exif()
    exif[274] = 6
    stored = np.array(STORED[6], np.uint16) * 40 * 257
    data = encoded(Image.fromarray(stored), "PNG", exif=exif.tobytes())
    assert np.array_equal(read_bytes(data)[:, :, 0], UPRIGHT)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[274] = value
    assert np.array_equal(read_bytes(encoded(Image.fromarray(pattern()), "PNG", exif=exif.tobytes())), pattern())


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif\0\0", b"Exif\0\0MM", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1"],
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    plain = encoded(Image.fromarray(pattern()), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert np.array_equal(read_bytes(plain[:2] + segment + plain[2:]), read_bytes(plain))


# ------------------------------------------------------------------ damaged files

NOISY = pattern() ^ np.random.default_rng(0).integers(0, 64, (30, 40, 3), dtype=np.uint8)
SAMPLES = {
    "jpeg": encoded(Image.fromarray(NOISY), "JPEG"),
    "jpeg progressive": encoded(Image.fromarray(NOISY), "JPEG", progressive=True),
    "png": encoded(Image.fromarray(NOISY), "PNG"),
    "png palette": encoded(Image.fromarray(NOISY).quantize(16), "PNG", transparency=3),
    "webp": encoded(Image.fromarray(NOISY), "WEBP"),
    "webp lossless": encoded(Image.fromarray(NOISY), "WEBP", lossless=True),
    "gif": encoded(Image.fromarray(NOISY), "GIF"),
    "bmp": encoded(Image.fromarray(NOISY), "BMP"),
    "tiff": encoded(Image.fromarray(NOISY), "TIFF"),
    "tiff 16 bit": encoded(Image.fromarray(NOISY[:, :, 0].astype(np.uint16) * 257), "TIFF"),
    "tiff lzw": encoded(Image.fromarray(NOISY), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encoded(Image.fromarray(NOISY), "TIFF", compression="jpeg"),
}


@pytest.mark.parametrize("name", list(SAMPLES))
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files_are_called_truncated(name: str, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = SAMPLES[name]
    assert reason_of(data[: int(len(data) * kept)]) == "truncated"
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="libtiff is a part of Pillow's module there")
def test_libtiff_does_not_print(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for compression in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4"):
        picture = Image.fromarray(NOISY).convert("1" if compression == "group4" else "RGB")
        data = np.frombuffer(encoded(picture, "TIFF", compression=compression), np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[rng.integers(len(data), size=6)] = rng.integers(256, size=6)
            with contextlib.suppress(UnreadableImage):
                read_bytes(damaged.tobytes())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive"])
def test_jpeg_cut_anywhere_in_its_pixels_is_truncated(name: str) -> None:
    data = SAMPLES[name]
    scan = data.index(b"\xff\xda")
    for end in range(scan + 12, len(data)):
        assert reason_of(data[:end]) == "truncated"
    middle = (scan + len(data)) // 2
    assert reason_of(data[:middle] + bytes(len(data))) == "truncated"  # a download into a file of full length
    for trailer in (bytes(100), b"an appended video"):
        assert np.array_equal(read_bytes(data + trailer), read_bytes(data))


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(SAMPLES)), kept=st.floats(0, 1))
def test_truncation_gives_the_picture_or_unreadable(name: str, kept: float) -> None:
    data = SAMPLES[name]
    try:
        pixels = read_bytes(data[: int(len(data) * kept)])
    except UnreadableImage as error:
        assert error.reason in {"truncated", "unreadable", "empty file"}  # noqa: PT017
    else:  # only what follows the pixels was lost
        assert np.array_equal(pixels, read_bytes(data))


@settings(max_examples=500)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=6),
    in_header=st.booleans(),
)
def test_flipped_bits_give_pixels_or_unreadable(name: str, flips: list[tuple[float, int]], in_header: bool) -> None:
    data = bytearray(SAMPLES[name])
    for place, bit in flips:
        data[int(place * min(len(data), 120 if in_header else len(data)))] ^= 1 << bit
    try:
        pixels = read_bytes(bytes(data))
    except UnreadableImage as error:
        assert error.reason in {"truncated", "unreadable", "too large"}  # noqa: PT017
    else:
        assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS


@settings(max_examples=100)
@given(data=st.binary(max_size=200))
@example(data=b"RIFF")
@example(data=b"II*\0")
@example(data=b"BM")
def test_any_bytes(data: bytes) -> None:
    assert reason_of(data) == "empty file" if not data else reason_of(data) in {"unreadable", "truncated"}


def test_too_large_is_seen_in_the_header() -> None:
    data = encoded(Image.fromarray(pattern()), "PNG")
    assert read_bytes(data, max_pixels=30 * 40).shape == (30, 40, 3)
    assert reason_of(data, max_pixels=30 * 40 - 1) == "too large"
    # 100,000 x 100,000 with no pixels at all: never decoded, and beyond Pillow's own bound too.
    assert reason_of(raw_png(100_000, 100_000, 8, 2, []), max_pixels=10**12) == "too large"
    assert reason_of(raw_png(12_000, 12_000, 8, 2, [])) == "too large"  # where Pillow would only warn


def test_not_an_image_empty_gone_and_irregular(tmp_path: Path) -> None:
    assert reason_of(b"") == "empty file"
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "unreadable"
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    expected = {
        "gone.jpg": "lost while reading",
        "pipe.jpg": "not a regular file",
        "folder.jpg": "not a regular file",
    }
    for name, reason in expected.items():
        with pytest.raises(UnreadableImage) as caught:
            read_image(tmp_path / name, MAX_PIXELS)
        assert caught.value.reason == reason


def test_threads_agree_and_no_warning_is_printed_or_filter_left(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = raw_png(10_000, 9_500, 1, 0, [])  # a decompression-bomb warning at opening
    (tmp_path / "noisy.png").write_bytes(noisy)
    (tmp_path / "fine.png").write_bytes(SAMPLES["png"])
    start = threading.Barrier(4)

    def work(worker: int) -> None:
        start.wait()
        for _ in range(20):
            assert np.array_equal(read_image(tmp_path / "fine.png", MAX_PIXELS), NOISY)
            with pytest.raises(UnreadableImage, match="too large"):
                read_image(tmp_path / "noisy.png", MAX_PIXELS)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
        assert list(warnings.filters) == before
        with pytest.warns(Image.DecompressionBombWarning):  # others still get theirs
            Image.open(tmp_path / "noisy.png").close()
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------ finding


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_endings_order_and_hidden_names(tmp_path: Path) -> None:
    images = ["a.jpg", "a.PNG", "a.jpeg", "a.jpe", "b/a.WebP", "b/c/a.bmp", "a-b/z.tif", "b.tiff", "B.GiF"]
    images += ["ünï/日本.jpg", "with space.jpg", "dir.jpg/inside.png", "new\nline.png"]
    touch(
        tmp_path,
        *images,
        "notes.txt",
        "jpg",
        "x.jpg.txt",
        ".hidden.jpg",
        ".cache/a.jpg",
        "__MACOSX/a.jpg",
        ".jpg",
    )
    found = find_images(tmp_path)
    assert found.root == tmp_path and found.skipped == ()
    assert found.names == tuple(sorted(images))


def test_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "notes.txt")
    assert find_images(tmp_path / "b.jpg") == find_images(tmp_path / "b.jpg").__class__(tmp_path, ("b.jpg",), ())
    monkeypatch.chdir(tmp_path)
    assert find_images(Path("a.jpg")).root == Path()
    with pytest.raises(InputError, match="not an image file"):
        find_images(tmp_path / "notes.txt")


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no image file: looked for \.jpg, .*\.gif"):
        find_images(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match=r"1 left out, such as pipe\.jpg \(not a regular file: a pipe"):
        find_images(tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a file"):
        find_images(tmp_path / "pipe.jpg")


def test_irregular_files_are_named_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    touch(tmp_path, "a.jpg")
    os.mkfifo("pipe.png")
    os.mkfifo("pipe-without-ending")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.gif")
        os.symlink("pipe.png", "to-pipe.jpg")
        os.symlink("/dev/zero", "to-device.jpg")
        os.symlink("gone", "broken.jpg")
        os.symlink("self.jpg", "self.jpg")
        os.symlink("gone", "broken-without-ending")
        found = find_images(tmp_path)
    assert found.names == ("a.jpg",)
    assert [(one.image, one.reason) for one in found.skipped] == [
        ("broken.jpg", "broken link"),
        ("pipe.png", "not a regular file"),
        ("self.jpg", "broken link"),
        ("socket.gif", "not a regular file"),
        ("to-device.jpg", "not a regular file"),
        ("to-pipe.jpg", "not a regular file"),
    ]


def test_links_list_each_real_file_once(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    touch(tree, "z/real.jpg", "z/blob")
    touch(outside, "one.jpg", "sub/two.jpg", "sub/three.png")
    links = {
        "a-link-to-real.jpg": "z/real.jpg",  # inside the tree: the real path wins though the link sorts first
        "blob.jpg": "z/blob",  # a real file that has no ending is listed by its link, once
        "blob-again.jpg": "z/blob",
        "loop": ".",
        "z/up": "..",
        "m": "../outside/sub",
        "n": "../outside",  # its folder `sub` has been visited as `m`
        "o.jpg": "../outside/one.jpg",  # listed as n/one.jpg
        "p": "../outside",
    }
    for name, target in links.items():
        os.symlink(target, tree / name)
    os.symlink("../../tree", outside / "sub" / "back")
    names = ("blob-again.jpg", "m/three.png", "m/two.jpg", "n/one.jpg", "z/real.jpg")
    assert find_images(tree).names == names
    assert find_images(tree).skipped == ()
    os.symlink("tree", tmp_path / "root-link")
    assert find_images(tmp_path / "root-link").names == names


@settings(max_examples=40)
@given(data=st.data())
def test_any_web_of_links_ends_and_lists_each_file_once(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = ["a", "a/b", "c", "c/d/e"]
        touch(root, *(f"{one}/x.jpg" for one in folders))
        places = data.draw(st.lists(st.tuples(st.sampled_from(folders), st.sampled_from([*folders, "."])), max_size=8))
        for number, (place, target) in enumerate(places):
            os.symlink(root / target, root / place / f"link{number}")
        assert find_images(root).names == tuple(f"{one}/x.jpg" for one in ("a/b", "a", "c/d/e", "c"))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    touch(folder, "inside.jpg")
    found = find_images(tmp_path)
    assert found.names == ("a.jpg",)
    assert [(one.image, one.reason) for one in found.skipped] == [
        ("\\xff", "name is not valid UTF-8"),
        ("caf\\xe9.jpg", "name is not valid UTF-8"),
    ]
    for one in found.skipped:
        one.image.encode()


def test_folders_without_permission() -> None:
    root = Path(tempfile.mkdtemp())  # not tmp_path: its parents are closed to the other user
    was_root = os.geteuid() == 0
    try:
        touch(root, "a.jpg", "closed/b.jpg")
        root.chmod(0o755)
        (root / "closed").chmod(0)
        if was_root:
            os.seteuid(65534)
        found = find_images(root)
        with pytest.raises(InputError, match="cannot be listed"):
            find_images(root / "closed")
    finally:
        if was_root:
            os.seteuid(0)
        (root / "closed").chmod(0o700)
        shutil.rmtree(root)
    assert found.names == ("a.jpg",)
    assert [(one.image, one.reason) for one in found.skipped] == [("closed", "unreadable folder")]


@pytest.mark.skipif(not MSRC14.is_dir(), reason=f"real photographs are not at {MSRC14.name}")
def test_real_photographs_equal_plain_pillow() -> None:
    found = find_images(MSRC14)
    assert found.skipped == () and len(found.names) > 400
    for name in found.names[::40]:
        with Image.open(found.root / name) as image:
            assert np.array_equal(read_image(found.root / name, 10**8), np.asarray(image.convert("RGB"))), name
