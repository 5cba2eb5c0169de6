"""Rows centred and scaled on access for distances in float32, without a second copy of all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK_ROWS = 65_536  # looked at together; a multiple of what products take at once, so that blocks change no digit


class CentredRows:
    """(rows - mean) * scale of (N, D) float32 `rows`, with mean 0 and largest absolute value near 1.

    Products give distances as |x|^2 + |y|^2 - 2 x.y, where a large common mean cancels all significant digits, and
    numbers above 1e19 overflow. The scale is a power of two, which keeps every digit. Rounding of the mean shifts all
    rows alike, so their differences stay accurate. Indexing gives float32 copies; the rows themselves are not changed.

    `rows`: the rows as given. `scale`: the factor. `shift`: (D,) float32, subtracted after scaling.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        mean, self.scale = _compute_centring(rows)
        self.shift = (mean * self.scale).astype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """The number D of values in a row."""
        return int(self.rows.shape[1])

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        return self.transform(self.rows[chosen])

    def transform(self, others: np.ndarray, into: np.ndarray | None = None) -> np.ndarray:
        """Apply the mean and scale of the rows to `others` (M, D) float32; gives (M, D) float32: `into`, or new."""
        result: np.ndarray = np.multiply(others, np.float32(self.scale), out=into, dtype=np.float32)
        result -= self.shift
        return result

    def iterate_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order, as blocks (B, D) float32 with the index of their first row."""
        for start in range(0, len(self.rows), BLOCK_ROWS):
            yield start, self[start : start + BLOCK_ROWS]


def _compute_centring(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Compute the mean (D,) and the scale."""
    if not rows.size:
        return np.zeros(rows.shape[1]), 1.0
    mean = rows.mean(axis=0, dtype=np.float64)
    largest = max(np.abs(rows.max(axis=0) - mean).max(), np.abs(rows.min(axis=0) - mean).max())
    return mean, float(np.ldexp(1.0, min(-int(np.frexp(largest)[1]), 126)))
