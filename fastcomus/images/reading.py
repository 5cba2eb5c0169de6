"""Reads images as RGB; what cannot be read gets a reason."""

from __future__ import annotations

import errno
import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from fastcomus.images.formats import explain_no_decoder, list_formats
from fastcomus.images.found import LOST, UnreadableImage
from fastcomus.images.libtiff import silence_libtiff
from fastcomus.images.modes import _orient_pixels, _to_rgb, read_exif_orientation
from fastcomus.images.roots import StoredImage
from fastcomus.images.truncation import _is_cut_short, is_jpeg_cut_short

silence_libtiff()
_BYTES_A_PIXEL = 8
_LOST_ERRORS = tuple(
    getattr(errno, name)
    for name in ("ENOENT", "ESTALE", "EIO", "EMFILE", "ENFILE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "ENODEV")
    if hasattr(errno, name)
)


def read_image(place: Path | str | StoredImage, max_pixels: int) -> np.ndarray:
    """Read one image as upright RGB. Threads may call this at once.

    - Every format of `formats`; the first of several pictures in a file, of icons the largest. Embedded ICC profiles
      are ignored: values are taken as sRGB.
    - Transparency (alpha, colour key, palette) is composited over white.
    - CMYK is converted without a profile, `R = (255 - C)(255 - K) / 255`; LAB by way of its D50 definition.
    - 16 bits a channel become their high byte (65535 -> 255); 12-bit grey likewise by its own range.
    - Wider integers (mode I) count as 16-bit if they lie in [0, 65535], else their range is stretched to
      [0, 255]; floats (mode F) are scaled from [0, 1], else from their finite minimum and maximum (a
      constant one is black; not-a-number is black).

    Args:
        place: A file, or an image in a tar or behind a URL.
        max_pixels: Most pixels (width times height), checked in the header before anything is decoded; it also bounds
            the bytes of a `StoredImage`. Pillow's own limit, 178,956,970 pixels by default, holds as well.

    Returns:
        (H, W, 3) uint8, C-contiguous, writable, with the EXIF orientation applied.

    Raises:
        UnreadableImage: The image cannot be used, with a reason of `Skipped`; nothing else, whatever the file holds.
    """
    content = b""

    def open_file() -> BinaryIO:
        return io.BytesIO(content) if isinstance(place, StoredImage) else Path(place).open("rb")

    try:
        if isinstance(place, StoredImage):
            content = read_encoded_image(place, max_pixels)
            size_bytes = len(content)
        else:
            status = Path(place).stat()
            if not stat.S_ISREG(status.st_mode):  # looked at before opening: a pipe would block for ever
                raise UnreadableImage("not a regular file", "a folder, pipe, socket or device")
            size_bytes = status.st_size
        if size_bytes == 0:
            raise UnreadableImage("empty file", "0 bytes")
        # Pillow gets the open file, not its name: it would map a named one into memory, where a file that shrinks
        # meanwhile kills the process.
        with (
            silence_pillow_warnings(),
            open_file() as file,
            Image.open(file, formats=list_formats(str(place))) as image,
        ):
            _check_header(image, size_bytes, max_pixels)
            image.load()
            if image.format in ("JPEG", "MPO") and is_jpeg_cut_short(file):
                raise UnreadableImage("truncated", "the JPEG data have no end marker")
            return _orient_pixels(_to_rgb(image), read_exif_orientation(image))
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(LOST, "the file does not exist (any more)") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too large", _shorten_error(error)) from error
    except Exception as error:  # plugins raise nearly every type there is on damaged files
        if isinstance(error, OSError) and error.errno in _LOST_ERRORS:
            raise UnreadableImage(LOST, _shorten_error(error)) from error
        if isinstance(error, MemoryError) and not _has_memory_for(max_pixels):
            raise  # the machine is to blame, not the file
        is_cut = "truncated" in str(error).lower() or _is_cut_short(open_file)
        raise UnreadableImage("truncated" if is_cut else "unreadable", _shorten_error(error, str(place))) from error


def read_encoded_image(image: StoredImage, max_pixels: int) -> bytes:
    """Return the bytes of an image: at most 8 per pixel of `max_pixels`, as uncompressed 16-bit RGBA has."""
    return image.read_encoded(_BYTES_A_PIXEL * max_pixels)


_warnings_lock = threading.Lock()
_readers = 0
_filter_lists: list[list[Any]] = []
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def silence_pillow_warnings() -> Iterator[None]:
    """Ignore warnings from Pillow's modules while at least one thread reads; then everything is as before.

    `warnings.catch_warnings` swaps the process-wide filters without a lock, so threads would undo each other.
    """
    global _readers
    with _warnings_lock:
        _readers += 1
        filters = cast("list[Any]", warnings.filters)
        if _PILLOW_FILTER not in filters:
            filters.insert(0, _PILLOW_FILTER)
            _filter_lists.append(filters)
    try:
        yield
    finally:
        with _warnings_lock:
            _readers -= 1
            if _readers == 0:
                # Other code may have swapped the list meanwhile: clean both the ones we changed and a copy.
                for filters in [*_filter_lists, cast("list[Any]", warnings.filters)]:
                    if _PILLOW_FILTER in filters:
                        filters.remove(_PILLOW_FILTER)
                _filter_lists.clear()


def _check_header(image: ImageFile.ImageFile, size_bytes: int, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UnreadableImage("too large", f"{image.width} x {image.height} pixels, max_pixels is {max_pixels}")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(259, 1) != 1:
        # Compressed strips or tiles past the end: seen here, for libtiff would print to stderr by itself.
        for offsets_tag, lengths_tag in ((273, 279), (324, 325)):
            offsets, lengths = image.tag_v2.get(offsets_tag, ()), image.tag_v2.get(lengths_tag, ())
            if any(offset + length > size_bytes for offset, length in zip(offsets, lengths, strict=False)):
                raise UnreadableImage("truncated", "image data lies beyond the end of the file")


def _has_memory_for(max_pixels: int) -> bool:
    """Whether there is memory for the largest image that may be read; damaged files ask for any amount."""
    try:
        np.empty(4 * max_pixels, np.uint8)
    except MemoryError:
        return False
    return True


def _shorten_error(error: Exception, name: str = "") -> str:
    if isinstance(error, UnidentifiedImageError):  # Pillow's text would only repeat the file object
        return explain_no_decoder(name) or "not an image that Pillow reads, or its header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
