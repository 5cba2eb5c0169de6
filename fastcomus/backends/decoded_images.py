"""Images decoded ahead of what uses them: each by a thread on the CPU, or a batch at a time by a device that can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np
import torch

from fastcomus.backends.interface import Backend, BatchDecoder, EncodedImage, Image
from fastcomus.backends.read_ahead import AHEAD, read_ahead
from fastcomus.images.found import UnreadableImage
from fastcomus.images.roots import ImageRoot

Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodedImage:
    """`pixels` (H, W, 3) uint8, on the host or on the device, or the reason why there are none."""

    name: str
    pixels: Image | None = None
    error: UnreadableImage | None = None


def decode_images(
    groups: Sequence[Sequence[str]],
    then: Callable[[DecodedImage], Result],
    *,
    root: ImageRoot,
    max_pixels: int,
    backend: Backend,
    workers: int,
    on_host: bool = False,
) -> Iterator[Result]:
    """`then(image)` of every image of `groups`, which are names under `root`, in order.

    `workers` threads read, decode and call `then`. Where the backend decodes on its device, they only read, and one
    thread decodes batches there, none of which leaves its group, and calls `then`; unless pixels must be `on_host`.
    Never raises for a bad image.
    """
    names = chain.from_iterable(groups)
    decoder = None if on_host else backend.batch_decoder
    if decoder is None:
        return read_ahead(lambda name: then(decode_image(root, name, max_pixels, backend)), names, workers)

    def decode(batch: Sequence[_ReadImage]) -> list[Result]:
        return [then(image) for image in _decode_batch(batch, decoder)]

    files = read_ahead(lambda name: _read(root, name, max_pixels, decoder), names, workers)
    sizes = [len(group) for group in groups]
    batches = cut_into_batches(files, sizes, backend.images_at_once, backend.pixels_at_once)
    return chain.from_iterable(read_ahead(decode, batches, 1, AHEAD // backend.images_at_once))


def decode_image(root: ImageRoot, name: str, max_pixels: int, backend: Backend) -> DecodedImage:
    """One image, on the host; for worker threads."""
    try:
        return DecodedImage(name, backend.decode(root / name, max_pixels))
    except UnreadableImage as error:
        return DecodedImage(name, error=error)


def resize_planes(pixels: Image, size: list[int]) -> torch.Tensor:
    """(3, h, w) uint8 of an image (H, W, 3) uint8, where it lies, with antialiasing. `size`: [h, w]."""
    from torchvision.transforms.v2 import functional as transforms

    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(np.require(pixels, requirements="W"))
    return transforms.resize(pixels.permute(2, 0, 1)[None], size, antialias=True)[0]


class _HasPixels(Protocol):
    @property
    def pixel_count(self) -> int: ...


Pictured = TypeVar("Pictured", bound=_HasPixels)


def cut_into_batches(
    images: Iterator[Pictured], groups: Sequence[int], most: int, most_pixels: int
) -> Iterator[list[Pictured]]:
    """Runs of up to `most` images and, unless one has more, `most_pixels`; none leaves its group. `groups`: sizes."""
    for size in groups:
        batch: list[Pictured] = []
        pixels = 0
        for _ in range(size):
            image = next(images)
            if batch and pixels + image.pixel_count > most_pixels:
                yield batch
                batch, pixels = [], 0
            batch.append(image)
            pixels += image.pixel_count
            if len(batch) == most:
                yield batch
                batch, pixels = [], 0
        if batch:
            yield batch


@dataclass(frozen=True)
class _ReadImage:
    """What is decoded on a device, or pixels already, or the reason why there is neither."""

    name: str
    file: EncodedImage | np.ndarray | None = None
    error: UnreadableImage | None = None

    @property
    def pixel_count(self) -> int:
        return 0 if self.file is None else self.file.shape[0] * self.file.shape[1]


def _read(root: ImageRoot, name: str, max_pixels: int, decoder: BatchDecoder) -> _ReadImage:
    try:
        return _ReadImage(name, decoder.read(root / name, max_pixels))
    except UnreadableImage as error:
        return _ReadImage(name, error=error)


def _decode_batch(batch: Sequence[_ReadImage], decoder: BatchDecoder) -> Iterator[DecodedImage]:
    decoded = iter(decoder.decode([image.file for image in batch if image.file is not None]))
    for image in batch:
        pixels = image.error or next(decoded)
        if isinstance(pixels, UnreadableImage):
            yield DecodedImage(image.name, error=pixels)
        else:
            yield DecodedImage(image.name, pixels)


def take_decoded_counts(backend: Backend) -> dict[str, int]:
    """How many images this process decoded where since the last call; see `BatchDecoder.take_counts`."""
    return backend.batch_decoder.take_counts() if backend.batch_decoder else {}
