"""Decoded images and their class maps kept in memory, as far as they fit."""

from __future__ import annotations

import threading

import numpy as np

from fastcomus.augmentation import ReadSample


class SampleCache:
    """A `ReadSample` that reads each sample once, until `limit_bytes` are full; the rest is read every time.

    What is in stays in: an epoch looks at every sample once, in a new order, so that none is worth more than another.
    Called from several threads.
    """

    def __init__(self, read: ReadSample, limit_bytes: float) -> None:
        self.read = read
        self.left_bytes = limit_bytes
        self.samples: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.lock = threading.Lock()

    def __call__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        kept = self.samples.get(index)
        if kept is not None:
            return kept
        pixels, class_map = self.read(index)
        with self.lock:
            if index not in self.samples and pixels.nbytes + class_map.nbytes <= self.left_bytes:
                self.left_bytes -= pixels.nbytes + class_map.nbytes
                self.samples[index] = pixels, class_map
        return pixels, class_map
