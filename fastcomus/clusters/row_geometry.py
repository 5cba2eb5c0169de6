"""Centres of clusters, distances to them, and rows in different directions: the same code on the host and a device.

Everything is computed where the rows are (`backends/placed.py`), and the results are there. Sums of many rows take one
order on every device, so that runs agree to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from fastcomus.backends.placed import InKind, Rows, fetch, get_namespace, put_beside
from fastcomus.store.embeddings import normalise_rows

_PIVOT_ROWS = 50_000  # among which the pivots are sought
_LENGTHS = 0.02  # power to which lengths of rows count in that search
_LEAST_STRENGTH = 1e-5  # of a direction, of the strongest one's
_ROWS_AT_ONCE = 16_384
_PAIRED_ROWS = 4_096  # compared with all centres at once


def compute_means(rows: InKind, labels: InKind, sizes: np.ndarray) -> InKind:
    """Compute the mean of the rows of each cluster, in float64.

    Args:
        rows: (N, C) float32.
        labels: (N,) integers in [0, k).
        sizes: (k,) integers, of the clusters.

    Returns:
        (k, C) float32; zeros for a cluster without rows.
    """
    xp = get_namespace(rows)
    order, ends = xp.argsort(labels, stable=True), np.cumsum(sizes).tolist()
    means = xp.zeros((len(sizes), rows.shape[1]), dtype=xp.float64, device=rows.device)
    # A cluster at a time: adding by label would take any order.
    for cluster, (first, last) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        for start in range(first, last, _ROWS_AT_ONCE):
            own = order[start : min(start + _ROWS_AT_ONCE, last)]
            means[cluster] += xp.sum(rows[own], axis=0, dtype=xp.float64)
        means[cluster] /= max(1, last - first)
    return cast(InKind, xp.asarray(means, dtype=xp.float32))


def compute_cosine_distances(rows: InKind, centres: InKind, labels: InKind) -> InKind:
    """Compute 1 - cosine between every row and the centre of its cluster, in float64.

    Args:
        rows: (N, C) float32.
        centres: (k, C) float32.
        labels: (N,) integers in [0, k).

    Returns:
        (N,) float32 in [0, 2]; 1 where row or centre is zero.
    """
    xp = get_namespace(rows)
    units = _scale_to_length_1(xp.asarray(centres, dtype=xp.float64))
    distances = xp.empty(len(rows), dtype=xp.float32, device=rows.device)
    for part in _iterate_parts(rows):
        own = _scale_to_length_1(xp.asarray(rows[part], dtype=xp.float64))
        cosines = xp.sum(own * units[labels[part]], axis=1)
        cosines = xp.where(xp.abs(cosines) > 1, xp.sign(cosines), cosines)
        distances[part] = xp.asarray(1 - cosines, dtype=xp.float32)
    return cast(InKind, distances)


def count_labels(labels: Rows, k: int) -> np.ndarray:
    """Count the rows of each cluster, (k,) int64; `labels`: (N,) integers in [0, k)."""
    return fetch(get_namespace(labels).bincount(labels, minlength=k))


def number_in_order(labels: InKind, order: np.ndarray) -> InKind:
    """Number clusters anew: (N,) labels become int32; `order`: (k,), the old number of each new one."""
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return cast(InKind, put_beside(labels, rank)[labels])


def normalise_in_kind(rows: Rows) -> Rows:
    """Scale rows (N, C) to length 1 as float32; rows of zeros stay."""
    if isinstance(rows, np.ndarray):
        return normalise_rows(rows)
    return _scale_to_length_1(rows).float()


def select_core(labels: InKind, distances: InKind, sizes: np.ndarray, filter: float) -> InKind:
    """Mark all rows of each cluster but the floor(filter * size) farthest from its centre.

    Args:
        labels: (N,) integers in [0, k).
        distances: (N,) float32, to the centres.
        sizes: (k,) integers, of the clusters.
        filter: Share of each cluster that is not core, in [0, 1).

    Returns:
        (N,) bool; of equal distances the first row is kept.
    """
    xp = get_namespace(labels)
    order = xp.argsort(distances, stable=True)
    order = order[xp.argsort(labels[order], stable=True)]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ends = put_beside(labels, starts + sizes - np.floor(filter * sizes + 1e-9).astype(np.int64))
    is_core = xp.empty(len(order), dtype=xp.bool, device=labels.device)
    is_core[order] = xp.arange(len(order), device=labels.device) < ends[labels[order]]
    return cast(InKind, is_core)


def find_pivots(rows: Rows, k: int, seed: int) -> np.ndarray:
    """Find rows in k directions that differ most: the pivots of a QR factorisation of rows^T, from a sample of rows.

    (Damle, Minden and Ying, "Simple, direct and efficient multi-way spectral clustering", 2019.) Rows count as almost
    equally long: of equal lengths, rounding would choose the first pivot, and the order of the rows would matter; of
    their own lengths, long rows would be chosen for that alone.

    Args:
        rows: (N, C) float32.
        k: Number of directions.
        seed: Of the sample.

    Returns:
        Their indices, (k,); fewer where the rows have fewer directions.
    """
    xp = get_namespace(rows)
    among, some = np.arange(len(rows)), rows
    if len(rows) > _PIVOT_ROWS:
        among = np.sort(np.random.default_rng(seed).choice(len(rows), _PIVOT_ROWS, replace=False))
        some = rows[put_beside(rows, among)]
    wide = xp.asarray(some, dtype=xp.float64)
    lengths, least = xp.linalg.vector_norm(wide, axis=1, keepdims=True), float(np.finfo(np.float32).tiny)
    wide = wide * xp.where(lengths > least, lengths, least) ** (_LENGTHS - 1)
    rest = xp.sum(wide * wide, axis=1)  # what the directions so far leave of each row's squared length
    directions = wide[:0]
    chosen: list[int] = []
    weakest = 0.0
    for _ in range(min(k, *wide.shape)):
        place = int(xp.argmax(rest))
        if float(rest[place]) <= weakest:
            break
        direction = wide[place]
        for _ in range(2):
            direction = direction - (directions @ direction) @ directions
        squared = float(direction @ direction)
        weakest = weakest or _LEAST_STRENGTH**2 * squared
        if squared <= weakest:
            break
        directions = xp.concat([directions, direction[None] / squared**0.5])
        rest -= (wide @ directions[-1]) ** 2
        rest[place] = 0
        chosen.append(place)
    pivots: np.ndarray = among[chosen]
    return pivots


def find_nearest_centres(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Find the centre (k, C) that is nearest to each row (N, C): (N,) integers, the first of equally near ones."""
    wide = centres.astype(np.float64)
    nearest, squares = np.empty(len(rows), np.int64), (wide * wide).sum(axis=1)
    for start in range(0, len(rows), _PAIRED_ROWS):
        part = slice(start, start + _PAIRED_ROWS)
        nearest[part] = (squares - 2 * (rows[part].astype(np.float64) @ wide.T)).argmin(axis=1)
    return nearest


def assign_by_pivots(rows: InKind, pivots: InKind) -> InKind:
    """Label each row with the pivot that it is most parallel to, once the pivots are made orthogonal.

    Args:
        rows: (N, C) float32.
        pivots: (k, C) float32, rows of unit length.

    Returns:
        (N,) int32 in [0, k).
    """
    xp = get_namespace(rows)
    left, _, right = np.linalg.svd(fetch(pivots).astype(np.float64).T, full_matrices=False)
    turned: Any = put_beside(rows, (left @ right).astype(np.float32))
    labels = xp.empty(len(rows), dtype=xp.int32, device=rows.device)
    for part in _iterate_parts(rows):
        labels[part] = xp.asarray(xp.argmax(xp.abs(rows[part] @ turned), axis=1), dtype=xp.int32)
    return cast(InKind, labels)


def _scale_to_length_1(rows: Any) -> Any:
    """Scale rows (N, C) to length 1; rows of zeros stay."""
    xp = get_namespace(rows)
    lengths = xp.linalg.vector_norm(rows, axis=1, keepdims=True)
    return rows / xp.where(lengths > 0, lengths, 1)


def _iterate_parts(rows: Rows) -> Iterator[slice]:
    """Yield slices of consecutive rows, to save memory."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield slice(start, start + _ROWS_AT_ONCE)
