"""Nearest neighbours on the CPU: exact by matrix products, or approximate by nearest-neighbour descent."""

from __future__ import annotations

import math

import numpy as np

from fastcomus.backends import Neighbors
from fastcomus.errors import InputError

# Up to here the exact search takes no longer than compiling and running the approximate one does.
EXACT_ROWS = 60_000
_SAMPLE = 500  # rows whose neighbours are also found exactly, to measure recall
_WIDENING = 4 / 3  # neighbours asked for beyond those needed, and once more while recall falls short
_ATTEMPTS = 4


def nearest_neighbors(
    embeddings: np.ndarray, count: int, recall: float, seed: int, workers: int, exact_rows: int = EXACT_ROWS
) -> Neighbors:
    """Every row's `count` nearest rows in Euclidean distance, itself first.

    `embeddings`: (N, D) float32. `recall` in (0, 1]: the share of true neighbours to reach, measured on a sample; 1, or
    N up to `exact_rows`, searches exactly. The measured recall comes with the result, also where it falls short.
    """
    mean, scale = _centring(embeddings)
    rows = _centred(embeddings, mean, scale)
    if recall >= 1 or len(rows) <= exact_rows:
        _, found = import_faiss().knn(rows, rows, count)
        return Neighbors(_itself_first(found), 1.0)
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False))
    farthest = import_faiss().knn(rows[sample], rows, count)[0][:, -1]
    wanted = count if recall <= 0.9 else math.ceil(_WIDENING * count)
    for _ in range(_ATTEMPTS):
        found = _itself_first(_descended(rows, wanted, seed, workers)[:, :count])
        reached = _recall(rows, sample, found[sample], farthest)
        if reached >= recall:
            break
        wanted = math.ceil(_WIDENING * wanted)
    return Neighbors(found, reached)


def nearest_rows(queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` of `rows` (N, D) nearest to each of `queries` (M, D), nearest first: indices (M, count) int64 and
    Euclidean distances (M, count) float32, by exact search."""
    mean, scale = _centring(rows)
    rows, queries = _centred(rows, mean, scale), _centred(queries, mean, scale)
    _, found = import_faiss().knn(queries, rows, count)
    # Again by differences: a difference of squares has too few digits for rows that lie close together.
    distances = np.empty(found.shape, np.float32)
    for query, neighbours, out in zip(queries, found, distances, strict=True):
        out[:] = np.linalg.norm(rows[neighbours] - query, axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(distances, order, axis=1) / np.float32(scale)


def import_faiss():  # type: ignore[no-untyped-def]
    """The faiss module; InputError naming the extras when neither build is installed."""
    try:
        import faiss
    except ImportError as error:
        raise InputError('FAISS is not installed; run pip install "fastcomus[cpu]" (or [gpu]).') from error
    return faiss


def _descended(rows: np.ndarray, count: int, seed: int, workers: int) -> np.ndarray:
    """(N, count) int32 by NN-descent (Dong et al. 2011) from random-projection trees."""
    try:
        from pynndescent import NNDescent
    except ImportError as error:
        raise InputError(
            f'{len(rows)} objects need the package pynndescent; run pip install "fastcomus[cpu]", or give --recall 1.'
        ) from error
    return NNDescent(rows, n_neighbors=count, random_state=seed, n_jobs=workers).neighbor_graph[0]


def _recall(rows: np.ndarray, sample: np.ndarray, found: np.ndarray, farthest: np.ndarray) -> float:
    """Share of `found` (S, n) no farther from its row than the true n-th neighbour, at squared distance `farthest`.

    By distance and not by index, so that ties and rounding decide nothing.
    """
    hits = 0
    for row, neighbours, limit in zip(sample, found, farthest, strict=True):
        squared = ((rows[neighbours] - rows[row]) ** 2).sum(axis=1)
        hits += int((squared[np.unique(neighbours, return_index=True)[1]] <= limit * (1 + 1e-4) + 1e-12).sum())
    return hits / found.size


def _centring(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean (D,) and scale by which FAISS can square rows in float32: their mean at 0, their largest number near 1.

    FAISS takes distances as |x|^2 + |y|^2 - 2 x.y, where a large common mean cancels all digits that matter, and
    numbers above 1e19 overflow. The scale is a power of two, which keeps every digit.
    """
    if not rows.size:
        return np.zeros(rows.shape[1]), 1.0
    mean = rows.mean(axis=0, dtype=np.float64)
    largest = max(np.abs(rows.max(axis=0) - mean).max(), np.abs(rows.min(axis=0) - mean).max())
    return mean, float(np.ldexp(1.0, -int(np.frexp(largest)[1])))


def _centred(rows: np.ndarray, mean: np.ndarray, scale: float) -> np.ndarray:
    """(rows - mean) * scale, float32."""
    result = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), 65_536):  # in float64, a slice at a time
        part = slice(start, start + 65_536)
        result[part] = (rows[part] - mean) * scale
    return result


def _itself_first(found: np.ndarray) -> np.ndarray:
    """(N, n) int32, each row's own index moved to the front; among equal rows a search may put others before it, or
    leave it out. Rows that a search left unfilled (-1) keep fewer neighbours: their own index stands there."""
    neighbours = found.astype(np.int32)
    own = np.arange(len(neighbours), dtype=np.int32)[:, None]
    np.copyto(neighbours, own, where=neighbours < 0)
    is_own = neighbours == own
    missing = ~is_own.any(axis=1)
    neighbours[missing, -1] = own[missing, 0]
    order = np.argsort(neighbours != own, axis=1, kind="stable")
    return np.take_along_axis(neighbours, order, axis=1)
