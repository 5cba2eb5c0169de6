"""Intervals by drawing the images again, with replacement (Efron's percentile bootstrap)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Interval = tuple[float, float]  # the lower and the upper end
LEVEL = 0.95


def resample_weights(count: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """(count,) int64, `draws` times: how often each of `count` images was drawn, `count` in all."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, count, count), minlength=count)


def compute_percentile_interval(values: Sequence[float]) -> Interval:
    """The middle 95 % of `values` (at least one)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
