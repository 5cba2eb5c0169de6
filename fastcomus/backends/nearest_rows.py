"""The nearest of all rows, among blocks of products, by sorting in NumPy.

What a row may take is held as one number, which sorts by row, distance and candidate; where many are held, a sort cuts
them to the nearest. The lists of `neighbor_lists.py` take candidates sooner, but numba, which compiles them, takes half
a second to load, in which NumPy compares all pairs of ten thousand rows.
"""

from __future__ import annotations

from threading import Lock

import numpy as np

from fastcomus.backends.centred_rows import CentredRows

_MOST_ROWS = 1_024  # of a block
_SPARE = 1 << 17  # candidates that a block holds beyond those that are kept
_DISTANCE_BITS = 32
_SIGN = np.uint32(1 << 31)
_PAIRS_AT_ONCE = 4_096
_FARTHEST = np.finfo(np.float32).min


def count_rows_at_once(others: int) -> int:
    """Count the rows that may be put together where there are so many others."""
    return min(_MOST_ROWS, 1 << (_DISTANCE_BITS - others.bit_length()))


def add_norms(rows: np.ndarray, centring: CentredRows | None = None) -> np.ndarray:
    """Add to rows x, (N, D) float32, the columns 1 and -|x|^2 / 2: (N, D + 2) float32.

    Products of these with what `turn_norms` makes of such are closeness, minus half of the squared distance:
    x.y - |x|^2 / 2 - |y|^2 / 2.

    Args:
        rows: The rows.
        centring: Centres them on the way; None where they are.
    """
    added = np.empty((len(rows), rows.shape[1] + 2), np.float32)
    vectors = added[:, :-2]
    if centring is None:
        vectors[:] = rows
    else:
        centring.transform(rows, into=vectors)
    added[:, -2], added[:, -1] = 1, np.einsum("ij,ij->i", vectors, vectors) * np.float32(-0.5)
    return added


def turn_norms(added: np.ndarray) -> np.ndarray:
    """Return the other factor of closeness: a copy with the last two columns exchanged."""
    turned = added.copy()
    turned[:, -2:] = added[:, :-3:-1]
    return turned


class NearestRows:
    """For each of R rows the `count` nearest of N others among those offered so far.

    Of equally near ones the first is kept, so that it does not matter in which order they come; it is quickest where
    they come in their own. Threads may offer at once.
    """

    def __init__(self, rows: int, count: int, others: int) -> None:
        assert rows <= count_rows_at_once(others), (rows, others)
        self._limits = np.full(rows, _FARTHEST, np.float32)  # the closeness that a candidate must reach
        self._last = np.full(rows, others)  # the candidate that is as close as the limit
        self._count, self._id_bits, self._lock = count, others.bit_length(), Lock()
        self._held: list[np.ndarray] = []
        self._most_held = rows * count + min(2 * rows * count, _SPARE)

    def offer(self, closeness: np.ndarray, first: int, flags: np.ndarray, by_column: bool = False) -> None:
        """Offer a run of others.

        Args:
            closeness: (R, C) float32 in C order, or (C, R) by column; minus infinity for none.
            first: Number of the first of the C others.
            flags: Memory to work in, bool, at least R * C.
            by_column: Whether the rows are the columns.
        """
        if not self._held:
            self._set_limits(closeness.T if by_column else closeness)
        with self._lock:  # who comes behind the last one that is kept must be closer; before it, as close is enough
            limits = np.where(self._last < first, np.nextafter(self._limits, np.float32(np.inf)), self._limits)
        marked = flags[: closeness.size].reshape(closeness.shape)
        np.greater_equal(closeness, limits if by_column else limits[:, None], out=marked)
        places = np.flatnonzero(marked)
        near = closeness.ravel()[places]
        rows, columns = np.divmod(places, closeness.shape[1])
        rows, others = (columns, rows) if by_column else (rows, columns)
        keys = rows.astype(np.uint64) << np.uint64(_DISTANCE_BITS + self._id_bits)
        keys |= _get_sortable_bits(near * np.float32(-2) + np.float32(0)) << np.uint64(self._id_bits)  # no -0
        keys |= (others + first).astype(np.uint64)
        with self._lock:
            self._held.append(keys)
            if sum(map(len, self._held)) > self._most_held:
                self._cut()

    def collect(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (R, count) int32, nearest first, -1 for none; and squared distances (R, count) float32.

        By rounding the distances of close rows may be below zero.
        """
        sizes = self._cut()
        ids = np.full((len(self._limits), self._count), -1, np.int32)
        squared = np.full(ids.shape, np.inf, np.float32)
        filled = np.arange(self._count) < sizes[:, None]
        ids[filled] = self._get_ids(self._held[0])
        squared[filled] = self._get_squared(self._held[0])
        return ids, squared

    def _set_limits(self, closeness: np.ndarray) -> None:
        """Set the limits by the first candidates, closeness (R, C) float32, which are still to be taken."""
        place = closeness.shape[1] - self._count
        if place > 0:
            limits = np.partition(closeness, place, axis=1)[:, place]
            with self._lock:
                raised = limits > self._limits
                self._limits[raised], self._last[raised] = limits[raised], 1 << self._id_bits

    def _cut(self) -> np.ndarray:
        """Keep the nearest alone; returns how many there are of each row, (R,) int64."""
        keys = np.concatenate([np.empty(0, np.uint64), *self._held])
        keys.sort()
        every = np.arange(len(self._limits), dtype=np.uint64) << np.uint64(_DISTANCE_BITS + self._id_bits)
        starts = np.searchsorted(keys, every)
        found = np.diff(starts, append=len(keys))
        keys = keys[np.arange(len(keys)) - np.repeat(starts, found) < self._count]
        sizes: np.ndarray = np.minimum(found, self._count)
        is_full = sizes == self._count
        last = keys[np.cumsum(sizes)[is_full] - 1]
        self._limits[is_full] = self._get_squared(last) / np.float32(-2)
        self._last[is_full] = self._get_ids(last)
        self._held = [keys]
        return sizes

    def _get_ids(self, keys: np.ndarray) -> np.ndarray:
        ids: np.ndarray = (keys & np.uint64((1 << self._id_bits) - 1)).astype(np.int64)
        return ids

    def _get_squared(self, keys: np.ndarray) -> np.ndarray:
        bits = (keys >> np.uint64(self._id_bits)).astype(np.uint32)  # the row's fall off
        squared: np.ndarray = np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float32)
        return squared


def _get_sortable_bits(values: np.ndarray) -> np.ndarray:
    """Get from float32 values (K,), without -0, numbers (K,) uint64 below 2^32 in the same order."""
    bits = values.view(np.uint32)
    sortable: np.ndarray = np.where(bits & _SIGN, ~bits, bits | _SIGN).astype(np.uint64)
    return sortable


def rank_by_differences(rows: CentredRows, looking: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank the nearest rows anew: a difference of squares has too few digits for rows that lie close together.

    Args:
        rows: N rows.
        looking: (R, D) float32, centred as they are.
        ids: (R, count) integers, the nearest rows of each.

    Returns:
        Ids (R, count) int32, nearest first, of equally near ones the first, and squared distances (R, count) float32.
    """
    ids = np.sort(ids, axis=1)
    squared, step = np.empty(ids.shape, np.float32), max(1, _PAIRS_AT_ONCE // max(1, ids.shape[1]))
    for start in range(0, len(ids), step):
        part = slice(start, start + step)
        differences = rows[ids[part].ravel()].reshape(*ids[part].shape, -1)
        differences -= looking[part, None]
        squared[part] = np.einsum("ijk,ijk->ij", differences, differences)
    order = np.argsort(squared, axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(squared, order, axis=1)
