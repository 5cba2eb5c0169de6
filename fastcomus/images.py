"""Find the images of a folder tree and read them as RGB; what cannot be used is named with a reason."""

from __future__ import annotations

import errno
import heapq
import io
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import PIL.WebPImagePlugin  # noqa: F401 - with the TIFF plugin below and preinit(): no thread has to load one
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError

from fastcomus.errors import InputError
from fastcomus.image_roots import ImageRoot, StoredImage

Image.preinit()
_BYTES_A_PIXEL = 8
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
LOST = "lost while reading"  # the file was listed and then could not be reached: it may be back the next time
_LOST_ERRORS = tuple(
    getattr(errno, name)
    for name in ("ENOENT", "ESTALE", "EIO", "EMFILE", "ENFILE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "ENODEV")
    if hasattr(errno, name)
)
ENDINGS = ("jpg", "jpeg", "jpe", "png", "webp", "bmp", "tif", "tiff", "gif")


@dataclass(frozen=True)
class Skipped:
    """One file or folder that was left out.

    `image`: path relative to the root, POSIX separators; bytes that are not UTF-8 stand as `\\xNN`.
    `reason`: "unreadable", "truncated", "empty file", "too large", "not a regular file", "broken link",
    "unreadable folder", "name is not valid UTF-8" or LOST; of what strangers named or packed, "unsafe name", "name
    occurs twice", "damaged archive" or "compressed archive"; later stages have reasons of their own.
    `detail`: one line of free text.
    """

    image: str
    reason: str
    detail: str


class NoImages(InputError):
    """A folder that holds no image file."""


@dataclass(frozen=True)
class ImageList:
    """The images under `root`: `names` are relative POSIX paths, sorted, each file once.

    `stamps`: by name, what changes when the image does (JSON), where it is no file whose size and time tell it.
    """

    root: ImageRoot
    names: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    stamps: Mapping[str, Any] = field(default_factory=dict)


class UnreadableImage(Exception):
    """`read_image` cannot use a file; `reason` and `detail` are those of `Skipped`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def find_images(root: Path) -> ImageList:
    """List every image file under `root`, by its ending (`ENDINGS`, in upper or lower case).

    Links are followed. Each real folder and each linked file is taken once: under its real path where that
    lies inside the tree, else through the link that sorts first, so that loops end. Names that start with
    "." and `__MACOSX` are passed over. Nothing is opened. `root` may also be one image file: then the list
    is that file, relative to its folder. Raises `InputError` where `root` is missing or holds no image.
    """
    root = Path(root)
    shown = printable(str(root))
    looked_for = ", ".join(f".{ending}" for ending in ENDINGS)
    if os.path.isdir(root):
        walk = _Walk(os.path.realpath(root), has_image_ending)
        names, skipped = walk.names, walk.skipped
        if walk.root_error:
            raise InputError(f"{shown} cannot be listed ({walk.root_error}); check its permissions.")
    elif os.path.isfile(root):
        if not has_image_ending(root.name) or not is_utf8(root.name):
            raise InputError(f"{shown} is not an image file; give a folder or a file of {looked_for}.")
        root, names, skipped = root.parent, [root.name], []
    else:
        what = "is neither a folder nor a file" if os.path.lexists(root) else "does not exist"
        raise InputError(f"{shown} {what}; give a folder of images.")
    if not names:
        left_out = f"; {len(skipped)} left out, such as {skipped[0].image} ({skipped[0].reason})" if skipped else ""
        raise NoImages(f"{root} holds no image file: looked for {looked_for} in it and its folders{left_out}.")
    return ImageList(root, tuple(sorted(names)), tuple(sorted(skipped, key=lambda one: one.image)))


def find_files(root: Path, is_wanted: Callable[[str], bool]) -> tuple[list[str], list[Skipped]]:
    """The files of a folder as `find_images` finds them, but those whose name `is_wanted`: sorted, and what was left
    out."""
    walk = _Walk(os.path.realpath(root), is_wanted)
    return sorted(walk.names), walk.skipped


class _Walk:
    """One pass over a tree: real folders first, then links to folders in sorted order, then links to files.

    `d_type` from the directory itself tells files, folders and links apart, so only links cost a `stat`. A
    real file needs no record of its own: it is listed if its real folder was visited and its name qualifies.
    """

    def __init__(self, real_root: str, is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        self.names: list[str] = []
        self.skipped: list[Skipped] = []
        self.root_error = ""
        self._visited: set[str] = set()
        self._folder_links: list[tuple[str, str]] = []  # a heap of (relative name, real path of the target)
        self._file_links: list[tuple[str, str]] = []
        self._walk_real_folders(real_root, "")
        while self._folder_links:
            name, target = heapq.heappop(self._folder_links)
            self._walk_real_folders(target, name + "/")
        linked: set[str] = set()
        for name, target in sorted(self._file_links):
            if target not in linked and not self._is_listed(target):
                linked.add(target)
                self.names.append(name)

    def _walk_real_folders(self, real_path: str, prefix: str) -> None:
        waiting = [(real_path, prefix)]
        while waiting:
            folder, prefix = waiting.pop()
            if folder in self._visited:
                continue
            self._visited.add(folder)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = entry.name
                        if is_hidden(name):
                            continue
                        if entry.is_symlink():
                            self._take_link(entry.path, prefix + name)
                        elif entry.is_dir(follow_symlinks=False):
                            if self._takes_name(name, prefix + name):
                                waiting.append((entry.path, prefix + name + "/"))
                        elif self._is_wanted(name) and self._takes_name(name, prefix + name):
                            if entry.is_file(follow_symlinks=False):
                                self.names.append(prefix + name)
                            else:
                                self._skip(prefix + name, "not a regular file", "a pipe, socket or device")
            except OSError as error:
                if not prefix:
                    self.root_error = error.strerror or str(error)
                self._skip(prefix.rstrip("/"), "unreadable folder", error.strerror or str(error))

    def _take_link(self, path: str, relative: str) -> None:
        name = os.path.basename(path)
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if self._is_wanted(name):
                self._skip(relative, "broken link", error.strerror or str(error))
            return
        if not (stat.S_ISDIR(mode) or self._is_wanted(name)) or not self._takes_name(name, relative):
            return
        if stat.S_ISDIR(mode):
            heapq.heappush(self._folder_links, (relative, os.path.realpath(path)))
        elif stat.S_ISREG(mode):
            self._file_links.append((relative, os.path.realpath(path)))
        else:
            self._skip(relative, "not a regular file", "a link to a pipe, socket or device")

    def _takes_name(self, name: str, relative: str) -> bool:
        if is_utf8(name):
            return True
        self._skip(relative, "name is not valid UTF-8", "rename it to use it")
        return False

    def _skip(self, relative: str, reason: str, detail: str) -> None:
        self.skipped.append(Skipped(printable(relative), reason, detail))

    def _is_listed(self, real_path: str) -> bool:
        folder, name = os.path.split(real_path)
        return folder in self._visited and not is_hidden(name) and self._is_wanted(name) and is_utf8(name)


def is_hidden(name: str) -> bool:
    return name[0] == "." or name == "__MACOSX"


def has_image_ending(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    return bool(stem) and ending.lower() in ENDINGS


def is_utf8(name: str) -> bool:
    """False where the operating system's bytes did not decode (Python keeps those as lone surrogates)."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def read_image(place: Path | str | StoredImage, max_pixels: int) -> np.ndarray:
    """Read one image as (H, W, 3) uint8 RGB, C-contiguous, writable, upright (EXIF orientation applied).

    - The first frame of a GIF, WebP or TIFF. Embedded ICC profiles are ignored: values are taken as sRGB.
    - Transparency (alpha, colour key, palette) is composited over white.
    - CMYK is converted without a profile, `R = (255 - C)(255 - K) / 255`; LAB by way of its D50 definition.
    - 16 bits a channel become their high byte (65535 -> 255); 12-bit grey likewise by its own range.
    - Wider integers (mode I) count as 16-bit if they lie in [0, 65535], else their range is stretched to
      [0, 255]; floats (mode F) are scaled from [0, 1], else from their finite minimum and maximum (a
      constant one is black; not-a-number is black).

    `max_pixels` bounds width times height, looked up in the header before anything is decoded, and the bytes of a
    `StoredImage` (`file_content`); Pillow's own bound, 178,956,970 pixels unless the program changed it, holds as well.
    Raises `UnreadableImage` with a reason from `Skipped`, and nothing else, whatever the file holds. Threads may call
    this at once.
    """
    content = b""

    def open_file() -> BinaryIO:
        return io.BytesIO(content) if isinstance(place, StoredImage) else open(place, "rb")

    try:
        if isinstance(place, StoredImage):
            content = file_content(place, max_pixels)
            size_bytes = len(content)
        else:
            status = os.stat(place)
            if not stat.S_ISREG(status.st_mode):  # looked at before opening: a pipe would block for ever
                raise UnreadableImage("not a regular file", "a folder, pipe, socket or device")
            size_bytes = status.st_size
        if size_bytes == 0:
            raise UnreadableImage("empty file", "0 bytes")
        with pillow_warnings_off(), open_file() as file:
            # Pillow gets the open file, not its name: it would map a named one into memory, where a file
            # that shrinks meanwhile kills the process.
            with Image.open(file, formats=_FORMATS) as image:
                _check_header(image, size_bytes, max_pixels)
                image.load()
                if image.format in ("JPEG", "MPO") and lacks_jpeg_end(file):
                    raise UnreadableImage("truncated", "the JPEG data have no end marker")
                return _upright(_to_rgb(image), exif_orientation(image))
    except UnreadableImage:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(LOST, "the file does not exist (any more)") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("too large", _one_line(error)) from error
    except Exception as error:  # plugins raise nearly every type there is on damaged files
        if isinstance(error, OSError) and error.errno in _LOST_ERRORS:
            raise UnreadableImage(LOST, _one_line(error)) from error
        if isinstance(error, MemoryError) and not _could_hold(max_pixels):
            raise  # the machine is to blame, not the file
        is_cut = "truncated" in str(error).lower() or _is_cut_short(open_file)
        raise UnreadableImage("truncated" if is_cut else "unreadable", _one_line(error)) from error


def file_content(image: StoredImage, max_pixels: int) -> bytes:
    """The bytes of its file, at most 8 for each of `max_pixels`, as many as 16-bit RGBA takes without compression."""
    return image.content(_BYTES_A_PIXEL * max_pixels)


_warnings_lock = threading.Lock()
_readers = 0
_filter_lists: list[list[Any]] = []
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def pillow_warnings_off() -> Iterator[None]:
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


def lacks_jpeg_end(file: BinaryIO) -> bool:
    """Whether no end marker follows the pixels, as when a broken download left zeros (read as grey)."""
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


def _could_hold(max_pixels: int) -> bool:
    """Whether there is memory for the largest image that may be read; damaged files ask for any amount."""
    try:
        np.empty(4 * max_pixels, np.uint8)
    except MemoryError:
        return False
    return True


def _to_rgb(image: ImageFile.ImageFile) -> np.ndarray:
    """(H, W, 3) uint8 of a loaded image of any mode."""
    if image.mode[0] == "I" or image.mode == "F":
        grey = _wide_grey_to_uint8(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return np.array(ImageCms.applyTransform(image, to_srgb))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _wide_grey_to_uint8(image: ImageFile.ImageFile) -> np.ndarray:
    """(H, W) uint8 of a grey image with more than 8 bits a pixel, scaled as `read_image` says."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        return _stretch(values.astype(np.float64), keep_unit_range=image.mode == "F")
    values = values.astype(np.uint16)
    bits = 16
    is_inverted = False
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode != "I":
        bits = 12 if image.tag_v2.get(258) == (12,) else 16
        is_inverted = image.tag_v2.get(262) == 0  # "white is zero", which Pillow leaves to us at this depth
    grey = (values >> (bits - 8)).astype(np.uint8)
    if is_inverted:
        grey = 255 - grey
    key = image.info.get("transparency")  # a PNG's colour key
    return np.where(values == key, np.uint8(255), grey) if isinstance(key, int) else grey


def _stretch(values: np.ndarray, keep_unit_range: bool) -> np.ndarray:
    """(H, W) uint8 of float64 values: scaled from [0, 1] where wanted and true, else from [min, max]."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if keep_unit_range and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = np.clip((values - low) * 255 / ((high - low) or 1.0), 0, 255)
    return np.rint(np.nan_to_num(scaled, nan=0.0)).astype(np.uint8)


def exif_orientation(image: ImageFile.ImageFile) -> int:
    """1 to 8 as in EXIF tag 274; 1 where there is none or the EXIF data are broken."""
    try:
        orientation = image.getexif().get(274, 1)
    except Exception:  # a picture is worth more than its broken metadata
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


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
        return start + 2 + len(entries) >= size_bytes
    value_bytes = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # by TIFF type; the others take 1
    ends = []
    for _, kind, count, offset in struct.iter_unpack(order + "HHII", entries):
        length = count * value_bytes.get(kind, 1)
        ends.append(offset + length if length > 4 else 0)  # up to 4 bytes stand in the entry itself
    return max(ends) > size_bytes


def _one_line(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # Pillow's text would only repeat the file object
        return "not a JPEG, PNG, WebP, BMP, TIFF or GIF file, or its header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
