"""Nearest neighbours on the CPU: exact among few rows, to a measured recall among many."""

from __future__ import annotations

from threading import local

import numpy as np

from fastcomus.backends.all_pairs import search_all_pairs
from fastcomus.backends.centred_rows import BLOCK_ROWS, CentredRows
from fastcomus.backends.interface import Neighbors
from fastcomus.backends.nearest_rows import NearestRows, add_norms, count_rows_at_once, rank_by_differences, turn_norms
from fastcomus.backends.threads import Threads, start_threads
from fastcomus.errors import InputError

ALL_PAIRS_ROWS = 40_000  # beyond, the search among likely pairs takes less time than that of all pairs
_SAMPLE = 300  # rows whose neighbours are also found exactly, to measure recall
_QUERIES_AT_ONCE = 512  # compared by a thread
_ROWS_AT_ONCE = 2_048  # with so many rows


def search_neighbors(
    embeddings: np.ndarray, count: int, recall: float, seed: int, threads: int, all_pairs_rows: int = ALL_PAIRS_ROWS
) -> Neighbors:
    """Find the nearest rows of every row in Euclidean distance, itself first.

    Args:
        embeddings: (N, D) float32.
        count: Rows to find, the row itself included.
        recall: Share of the true neighbours to reach, in (0, 1], measured on a sample. Few rows, or a recall of 1, are
            searched exactly.
        seed: Seed of the search and of the sample.
        threads: Number of threads.
        all_pairs_rows: Up to so many rows all pairs are compared.

    Returns:
        The neighbours and their measured recall, which may fall short of the one asked for.
    """
    rows = CentredRows(embeddings)
    others, order = count - 1, np.arange(len(rows))
    if not others:
        return Neighbors(order[:, None].astype(np.int32), 1.0, order)
    if recall == 1 or len(rows) <= all_pairs_rows:
        with start_threads(threads) as workers:
            found, reached = search_all_pairs(rows, others, workers), 1.0
    else:
        import_faiss()  # it orders the rows; where it is missing, that is said before anything is computed
        from fastcomus.backends.neighbor_descent import search_likely_pairs

        with start_threads(threads) as workers:
            sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False))
            farthest = search_by_products(rows[sample], rows, count, workers)[0][:, -1]

            def recall_of(candidates: np.ndarray) -> float:
                return measure_recall(rows, sample, candidates, farthest, others)

            found, order = search_likely_pairs(rows, others, recall, sample, recall_of, seed, workers)
            reached = recall_of(found[sample])
    indices = np.empty((len(rows), count), np.int32)
    indices[:, 0] = np.arange(len(rows))
    np.copyto(indices[:, 1:], found)
    np.copyto(indices[:, 1:], indices[:, :1], where=found < 0)
    return Neighbors(indices, reached, order)


def search_nearest_rows(
    queries: np.ndarray, rows: np.ndarray, count: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """See `Backend.find_nearest`; `threads` search."""
    centred = CentredRows(rows)
    with start_threads(threads) as workers:
        squared, found = search_by_products(centred.transform(queries), centred, count, workers)
    return found, np.sqrt(squared) / np.float32(centred.scale)


def search_by_products(
    queries: np.ndarray, rows: CentredRows, count: int, threads: Threads
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of queries among all pairs, by matrix products.

    Args:
        queries: (M, D) float32, centred as the rows are.
        rows: N rows.
        count: Rows to find for each, at most N.
        threads: Share the queries.

    Returns:
        Squared distances (M, count) float32, computed from differences, and indices (M, count) int64, nearest first.
    """
    at_once = min(_QUERIES_AT_ONCE, count_rows_at_once(len(rows)), -(-len(queries) // threads.count) or 1)
    parts = [slice(start, min(start + at_once, len(queries))) for start in range(0, len(queries), at_once)]
    lists = [NearestRows(part.stop - part.start, count, len(rows)) for part in parts]
    own = local()
    for first in range(0, len(rows), BLOCK_ROWS):
        others = add_norms(rows.rows[first : first + BLOCK_ROWS], rows)

        def compare(place: int, first: int = first, others: np.ndarray = others) -> None:
            if not hasattr(own, "flags"):
                own.flags = np.empty(at_once * _ROWS_AT_ONCE, bool)
            looking = turn_norms(add_norms(queries[parts[place]]))
            for start in range(0, len(others), _ROWS_AT_ONCE):
                products = looking @ others[start : start + _ROWS_AT_ONCE].T
                lists[place].offer(products, first + start, own.flags)

        threads.map(compare, range(len(parts)))
    squared, found = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)

    def measure(place: int) -> None:
        part = parts[place]
        found[part], squared[part] = rank_by_differences(rows, queries[part], lists[place].collect()[0])

    threads.map(measure, range(len(parts)))
    return squared, found


def import_faiss():  # type: ignore[no-untyped-def]
    """Import faiss; where it is not installed, the InputError names the extras."""
    try:
        import faiss
    except ImportError as error:
        raise InputError("FAISS is not installed; run pip install faiss-cpu (or faiss-gpu).") from error
    return faiss


def measure_recall(
    rows: CentredRows, sample: np.ndarray, found: np.ndarray, farthest: np.ndarray, others: int
) -> float:
    """Measure the recall, in [0, 1], of candidates: those no farther than the true last neighbour count as true.

    Args:
        rows: The rows.
        sample: (S,), the rows whose true neighbours are known.
        found: (S, L), their candidates, -1 for none.
        farthest: (S,), squared distance of the true last neighbour.
        others: Number of true neighbours of a row, itself not included.
    """
    hits = 0
    for row, candidates, limit in zip(sample, found, farthest, strict=True):
        squared = ((rows[candidates[candidates >= 0]] - rows[row : row + 1]) ** 2).sum(axis=1)
        hits += min(others, int((squared <= limit * (1 + 1e-4) + 1e-12).sum()))
    return hits / (len(sample) * others)
