"""Training samples: images and their class maps in a run folder, read, checked and cached in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.backends.read_ahead import read_ahead
from fastcomus.errors import InputError
from fastcomus.images.found import UnreadableImage
from fastcomus.images.roots import ImagePlace
from fastcomus.networks.augmentation import ReadSample
from fastcomus.segmentation.strips import IGNORED
from fastcomus.store.masks import read_class_map
from fastcomus.store.run_folder import RunFolder


@dataclass(frozen=True)
class Sample:
    """A training sample by the places of its files.

    `image`: where the image lies. `mask`: name of its class map in the run folder. `confidence`: name of the network's
    confidence in each pixel; "" where all pixels are learnt from.
    """

    image: ImagePlace
    mask: str
    confidence: str = ""


def make_sample_reader(
    samples: Sequence[Sample],
    k: int,
    min_confidence: float,
    max_pixels: int,
    cache_bytes: float,
    folder: RunFolder,
    backend: Backend,
) -> ReadSample:
    """Make a function that reads sample i; it raises InputError for a file that is gone or does not fit the others.

    Args:
        samples: The samples.
        k: Number of clusters.
        min_confidence: In [0, 1]; pixels of lower confidence get the label IGNORED.
        max_pixels: Largest image to decode, in pixels.
        cache_bytes: Memory for samples that are kept decoded.
        folder: The run folder that holds class maps and confidences.
        backend: What decodes the images.

    Returns:
        A function from i to pixels (H, W, 3) uint8 and class map (H, W) with labels in [0, k] or IGNORED.
    """

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = samples[index]
        try:
            pixels = backend.decode(sample.image, max_pixels)
        except UnreadableImage as error:
            raise InputError(
                f"{sample.image} can no longer be read ({error}); put it back, or run fastcomus embed and cluster."
            ) from error
        class_map = read_class_map(folder, sample.mask)
        _check_size(sample.mask, class_map, pixels, sample.image, folder)
        if class_map.max(initial=0) > k:
            raise InputError(
                f"{folder.resolve_file(sample.mask)} has the label {class_map.max()} where k = {k} allows 0 to {k}; "
                "run fastcomus cluster again."
            )
        if sample.confidence and min_confidence > 0:
            sure = read_class_map(folder, sample.confidence)
            _check_size(sample.confidence, sure, pixels, sample.image, folder)
            class_map = np.where(sure < 255 * min_confidence, IGNORED, class_map.astype(np.int32))
        return pixels, class_map

    return SampleCache(read, cache_bytes)


def check_samples(read: ReadSample, indices: Sequence[int], workers: int, on_sample: Callable[[int], None]) -> None:
    """Read the samples `indices` once, so that one that is unusable ends training before its first step."""
    for _ in read_ahead(read, indices, workers):
        on_sample(1)


def _check_size(name: str, class_map: np.ndarray, pixels: np.ndarray, image: ImagePlace, folder: RunFolder) -> None:
    if class_map.shape != pixels.shape[:2]:
        raise InputError(
            f"{image} is {pixels.shape[1]} x {pixels.shape[0]} pixels and {folder.resolve_file(name)} "
            f"{class_map.shape[1]} x {class_map.shape[0]}; run fastcomus embed again."
        )


class SampleCache:
    """A `ReadSample` that keeps the samples it read until the limit is reached, and reads the others every time.

    Samples are never dropped again: each epoch uses every sample once, so none is more useful than another. The
    cache may be called from several threads.
    """

    def __init__(self, read: ReadSample, limit_bytes: float) -> None:
        """Start an empty cache of at most `limit_bytes` of pixels and class maps, filled by `read`."""
        self.read = read
        self.left_bytes = limit_bytes
        self.samples: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.lock = threading.Lock()

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `ReadSample`."""
        kept = self.samples.get(index)
        if kept is not None:
            return kept
        pixels, class_map = self.read(index)
        with self.lock:
            if index not in self.samples and pixels.nbytes + class_map.nbytes <= self.left_bytes:
                self.left_bytes -= pixels.nbytes + class_map.nbytes
                self.samples[index] = pixels, class_map
        return pixels, class_map
