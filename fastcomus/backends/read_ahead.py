"""Work done in threads ahead of its consumer, above all images decoded ahead of their use.

Images are decoded one by one in CPU threads, or in batches by a device that can decode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from fastcomus.backends.threads import limit_to_one_thread
from fastcomus.images.found import UnreadableImage
from fastcomus.images.roots import ImageRoot

if TYPE_CHECKING:
    import torch

    from fastcomus.backends.interface import Backend, BatchDecoder, EncodedImage, Image

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 32  # results that wait: a batch, so that the next one is ready when the network has done its own


def read_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = AHEAD
) -> Iterator[Result]:
    """Apply a function to items in threads, ahead of the consumer; memory stays bounded however many items there are.

    Each thread computes alone: splitting small operations among further threads would only take cores from the
    consumer.

    Args:
        work: Applied to every item.
        items: The items.
        workers: Number of threads.
        ahead: Most results that wait to be consumed.

    Yields:
        The results, in order.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read-ahead", initializer=limit_to_one_thread) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead + workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class DecodedImage:
    """Pixels (H, W, 3) uint8, on the host or on the device, or the error that prevented decoding."""

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
    ahead: int = AHEAD,
) -> Iterator[Result]:
    """Decode images ahead of their use. A bad image is passed on with its error; it never raises.

    Threads read and decode files and call `then`. Where the backend decodes on its device, they only read; one thread
    then decodes batches on the device, none of which spans two groups, and calls `then`.

    Args:
        groups: Groups of image names under `root`.
        then: Called with every image.
        root: Where the images are.
        max_pixels: Larger images are refused.
        backend: Decodes the files.
        workers: Number of threads that read.
        on_host: Whether pixels must be in host memory.
        ahead: Most results that wait to be used.

    Returns:
        The results of `then`, in order.
    """
    names = chain.from_iterable(groups)
    decoder = None if on_host else backend.batch_decoder
    if decoder is None:
        return read_ahead(lambda name: then(decode_image(root, name, max_pixels, backend)), names, workers, ahead)

    def decode(batch: Sequence[_ReadImage]) -> list[Result]:
        return [then(image) for image in _decode_batch(batch, decoder)]

    files = read_ahead(lambda name: _read(root, name, max_pixels, decoder), names, workers)
    sizes = [len(group) for group in groups]
    batches = cut_into_batches(files, sizes, backend.images_at_once, backend.pixels_at_once)
    return chain.from_iterable(read_ahead(decode, batches, 1, ahead // backend.images_at_once))


def decode_image(root: ImageRoot, name: str, max_pixels: int, backend: Backend) -> DecodedImage:
    """Decode one image to host memory; may be called from several threads.

    Args:
        root: Where the images are.
        name: Name of the image under `root`.
        max_pixels: Larger images are refused.
        backend: Decodes the file.

    Returns:
        The image, or the error where it is unreadable.
    """
    try:
        return DecodedImage(name, backend.decode(root / name, max_pixels))
    except UnreadableImage as error:
        return DecodedImage(name, error=error)


def resize_planes(pixels: Image, size: list[int]) -> torch.Tensor:
    """Resize an image with antialiasing, on the device where it is.

    Args:
        pixels: (H, W, 3) uint8.
        size: [h, w] in pixels.

    Returns:
        (3, h, w) uint8.
    """
    import torch
    from torchvision.transforms.v2 import functional as transforms

    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(np.require(pixels, requirements="W"))
    planes: torch.Tensor = transforms.resize(pixels.permute(2, 0, 1)[None], size, antialias=True)[0]
    return planes


class _HasPixels(Protocol):
    @property
    def pixel_count(self) -> int: ...


Pictured = TypeVar("Pictured", bound=_HasPixels)


def cut_into_batches(
    images: Iterator[Pictured], groups: Sequence[int], most: int, most_pixels: int
) -> Iterator[list[Pictured]]:
    """Cut a stream of images into batches, none of which spans two groups.

    Args:
        images: The images of all groups, in order.
        groups: Number of images in each group.
        most: Largest number of images in a batch.
        most_pixels: Largest number of pixels in a batch, unless a single image has more.

    Yields:
        The batches, in order.
    """
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
    """A file to decode on a device, pixels that are decoded already, or the error that prevented reading."""

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
    """Count the images that this process decoded since the last call; see `BatchDecoder.take_counts`."""
    return backend.batch_decoder.take_counts() if backend.batch_decoder else {}
