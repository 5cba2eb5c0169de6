"""Images with one coloured square, to train on."""

from __future__ import annotations

import numpy as np

COLOURS = np.array([[90, 120, 90], [220, 40, 30], [30, 60, 220]])  # background and two clusters


def square(index: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with one coloured square and its class map."""
    rng = np.random.default_rng(index)
    labels = np.zeros((80, 96), np.uint16)
    side, y, x = int(rng.integers(32, 48)), int(rng.integers(0, 33)), int(rng.integers(0, 49))
    labels[y : y + side, x : x + side] = 1 + index % 2
    pixels = COLOURS[labels] + rng.normal(0, 6, (80, 96, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels
