"""Confidence intervals over images by Efron's percentile bootstrap: images are drawn again with replacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Interval = tuple[float, float]  # the lower and the upper end
LEVEL = 0.95


def resample_weights(count: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Draw `count` of `count` images with replacement, `draws` times: (count,) int64, how often each was drawn."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, count, count), minlength=count)


def compute_percentile_interval(values: Sequence[float]) -> Interval:
    """Compute the interval that holds the middle 95 % of `values` (at least one)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
