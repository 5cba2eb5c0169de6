"""JPEG files decoded on a device in batches, by nvJPEG through torchvision; the CPU decodes what it cannot.

nvJPEG takes three colours in YCbCr. The CPU decodes files of other formats, grey and CMYK ones, RGB without conversion,
truncated ones, and those that nvJPEG refuses. Colour profiles are ignored either way, and pixels are turned upright by
the EXIF orientation on the device.
"""

from __future__ import annotations

import logging
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pictures
from torchvision.io import ImageReadMode, decode_jpeg

from fastcomus.backends.machine import move_to_device
from fastcomus.errors import is_out_of_memory
from fastcomus.images.found import UnreadableImage
from fastcomus.images.modes import read_exif_orientation
from fastcomus.images.reading import read_encoded_image, read_image, silence_pillow_warnings
from fastcomus.images.roots import ImagePlace, StoredImage
from fastcomus.images.truncation import is_jpeg_cut_short

log = logging.getLogger("fastcomus")

REFUSED = "refused by nvJPEG"
_MOST_BYTES = 2**28  # of a file; a larger one is read as it is decoded
_LEAST_TRIED = 4  # files refused, none taken: nvJPEG does not work here
_RGB_NAMES = [ord(letter) for letter in "RGB"]  # of components that are red, green and blue, not YCbCr

Decode = Callable[[list[torch.Tensor], torch.device], list[torch.Tensor]]


@dataclass(frozen=True)
class JpegFile:
    """A file that nvJPEG should be able to decode.

    `place`: where it can be read again. `data`: its bytes, uint8. `orientation`: of EXIF, 1 to 8. `shape`: (H, W, 3) of
    its pixels, before they are turned. `max_pixels`: see `BatchDecoder.read`.
    """

    place: ImagePlace
    data: torch.Tensor
    orientation: int
    shape: tuple[int, int, int]
    max_pixels: int


class JpegBatches:
    """A `BatchDecoder`. `decode` turns files into planes (3, H, W) uint8 on the device; its RuntimeError is for all."""

    def __init__(self, device: torch.device, decode: Decode | None = None) -> None:
        self.device = device
        self._decode = decode or _decode_by_torchvision
        self._works = True
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def read(self, place: ImagePlace | str, max_pixels: int) -> JpegFile | np.ndarray:
        """See `BatchDecoder.read`."""
        near = _fetch_image(place, max_pixels) if isinstance(place, StoredImage) else Path(place)
        file = _read_jpeg(near, max_pixels) if self._works else REFUSED
        if isinstance(file, JpegFile):
            return file
        pixels = read_image(near, max_pixels)
        self._count(file, 1)
        return pixels

    def decode(self, files: Sequence[JpegFile | np.ndarray]) -> list[torch.Tensor | UnreadableImage]:
        """See `BatchDecoder.decode`."""
        decoded = iter(self._decode_planes([file for file in files if isinstance(file, JpegFile)]))
        images: list[torch.Tensor | UnreadableImage] = []
        for file in files:
            planes = next(decoded) if isinstance(file, JpegFile) else None
            if planes is not None and isinstance(file, JpegFile):
                images.append(orient_planes(planes, file.orientation).permute(1, 2, 0))
                continue
            try:
                pixels = file if isinstance(file, np.ndarray) else self._read_after_all(file)
                images.append(move_to_device(torch.from_numpy(pixels), self.device))
            except UnreadableImage as error:
                images.append(error)
        return images

    def take_counts(self) -> dict[str, int]:
        """See `BatchDecoder.take_counts`."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return {what: count for what, count in counts.items() if count}

    def _decode_planes(self, files: Sequence[JpegFile]) -> list[torch.Tensor | None]:
        """Decode every file to (3, H, W), or None where refused; after a failed batch each file is tried alone."""
        if not files:
            return []
        planes: list[torch.Tensor | None] = []
        with self._use_own_stream() as keep:
            try:
                planes += self._decode([file.data for file in files], self.device)
            except RuntimeError as error:
                if is_full := is_out_of_memory(error):
                    torch.cuda.empty_cache()
                planes += [self._decode_alone(file) for file in files]
                if len(files) >= _LEAST_TRIED and not is_full and not any(one is not None for one in planes):
                    log.warning("nvJPEG decodes none of %d files (%s); the CPU reads from here on.", len(files), error)
                    self._works = False
            keep(planes)
        self._count(str(self.device), sum(one is not None for one in planes))
        return planes

    def _decode_alone(self, file: JpegFile) -> torch.Tensor | None:
        try:
            return self._decode([file.data], self.device)[0]
        except RuntimeError:
            return None

    def _read_after_all(self, file: JpegFile) -> np.ndarray:
        pixels = read_image(file.place, file.max_pixels)
        self._count(REFUSED, 1)
        return pixels

    @contextmanager
    def _use_own_stream(self) -> Iterator[Callable[[Sequence[torch.Tensor | None]], None]]:
        """Decode on a stream of our own, since torchvision's waits for none; kept tensors are complete at the end."""
        if self._stream is None:
            yield lambda planes: None
            return
        reader = torch.cuda.current_stream(self.device)

        def keep(planes: Sequence[torch.Tensor | None]) -> None:
            for one in planes:
                if one is not None:
                    one.record_stream(reader)

        with torch.cuda.stream(self._stream):
            yield keep
        self._stream.synchronize()

    def _count(self, what: str, count: int) -> None:
        with self._lock:
            self._counts[what] += count


def orient_planes(planes: torch.Tensor, orientation: int) -> torch.Tensor:
    """Turn an image (3, H, W) as its EXIF orientation, 1 to 8, asks for: (3, W, H) from 5 on."""
    if orientation >= 5:
        planes = planes.transpose(1, 2)
    flipped = [1] if orientation in (3, 4, 7, 8) else []
    flipped += [2] if orientation in (2, 3, 6, 7) else []
    return planes.flip(flipped).contiguous() if flipped else planes.contiguous()


def _decode_by_torchvision(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    planes: list[torch.Tensor] = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    return planes


@dataclass(frozen=True)
class _Fetched(StoredImage):
    """A stored image whose bytes are in memory, so that they are not fetched twice."""

    name: str
    data: bytes

    def read_encoded(self, most_bytes: int) -> bytes:
        return self.data

    def __str__(self) -> str:
        return self.name


def _fetch_image(image: StoredImage, max_pixels: int) -> _Fetched:
    return _Fetched(str(image), read_encoded_image(image, max_pixels))


def _read_jpeg(place: Path | _Fetched, max_pixels: int) -> JpegFile | str:
    """Read a file for the device, or give the reason why the CPU's reader must read it (or report what is wrong)."""
    try:
        if isinstance(place, Path):
            status = place.stat()
            if not stat.S_ISREG(status.st_mode):
                return "no file"
            if status.st_size > _MOST_BYTES:
                return "large file"
        data = bytearray(place.read_bytes() if isinstance(place, Path) else place.data)
        if not data.startswith(b"\xff\xd8"):
            return "no JPEG"
        with silence_pillow_warnings(), Pictures.open(BytesIO(data), formats=("JPEG",)) as image:
            if reason := _explain_unsuitable(image, max_pixels):
                return reason
            if is_jpeg_cut_short(BytesIO(data)):
                return "cut short"
            shape = (image.height, image.width, 3)
            return JpegFile(
                place, torch.frombuffer(data, dtype=torch.uint8), read_exif_orientation(image), shape, max_pixels
            )
    except Exception:  # as many kinds as damaged files have; the CPU's reader names it
        return "damaged header"


def _explain_unsuitable(image: Any, max_pixels: int) -> str:
    if image.width * image.height > max_pixels:
        return "too large"
    if image.mode != "RGB":
        return "grey" if image.mode == "L" else str(image.mode)
    # As libjpeg guesses: Adobe's marker says it, else JFIF's, else the components' names.
    if image.info.get("adobe_transform", 1) == 0:
        return "RGB without conversion"
    has_marker = "adobe" in image.info or "jfif" in image.info
    if not has_marker and [component[0] for component in image.layer] == _RGB_NAMES:
        return "RGB without conversion"
    return ""
