"""Rows made fit for squaring in float32 when they are looked at, so that there is no second copy of all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_ROWS = 65_536  # looked at together; a multiple of what FAISS takes at once, so that blocks change no digit


class CentredRows:
    """(rows - mean) * scale of (N, D) float32 `rows`, their mean at 0, their largest number near 1.

    FAISS takes distances as |x|^2 + |y|^2 - 2 x.y, where a large common mean cancels all digits that matter, and
    numbers above 1e19 overflow. The scale is a power of two, which keeps every digit. The mean loses digits, the same
    for all rows: their differences do not. Indexing gives float32 copies; the rows themselves are left as they are.

    `rows`: as they came. `shift`: (D,) float32, what is taken off after scaling.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        mean, self.scale = _compute_centring(rows)
        self.shift = (mean * self.scale).astype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """D, the numbers in a row."""
        return int(self.rows.shape[1])

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        return self.transform(self.rows[chosen])

    def transform(self, others: np.ndarray) -> np.ndarray:
        """`others` ((M, D) float32) as the rows are, by their mean and scale."""
        result: np.ndarray = np.multiply(others, np.float32(self.scale), dtype=np.float32)
        result -= self.shift
        return result

    def iterate_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order, (first row, (B, D)), a block at a time."""
        for start in range(0, len(self.rows), BLOCK_ROWS):
            yield start, self[start : start + BLOCK_ROWS]


def _compute_centring(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean (D,) and scale."""
    if not rows.size:
        return np.zeros(rows.shape[1]), 1.0
    mean = rows.mean(axis=0, dtype=np.float64)
    largest = max(np.abs(rows.max(axis=0) - mean).max(), np.abs(rows.min(axis=0) - mean).max())
    return mean, float(np.ldexp(1.0, min(-int(np.frexp(largest)[1]), 126)))
