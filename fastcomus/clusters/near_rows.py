"""The nearest of many fixed rows for any number of queries, to a measured recall: inverted lists by matrix products.

The fixed rows are divided into lists around centres. Queries come in blocks; of each the lists nearest to it are looked
at, list by list, so that all queries of a block that want a list share one product with its rows (Johnson et al.,
"Billion-scale similarity search with GPUs", 2017, for the lists). How many lists are looked at is decided once, on a
sample of queries whose true neighbours are known. Memory is that of the rows and of one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.backends.nearest_neighbors import import_faiss
from fastcomus.backends.placed import Rows
from fastcomus.backends.threads import start_threads

_ALL_PAIRS = 1e9  # up to so many all pairs are compared
_LISTS = 4  # times the root of the number of rows: many, so that few rows beyond the nearest are looked at
_TRAINING_ROWS = 40  # of the k-means, for each list
_ITERATIONS = 8  # of it
_AT_ONCE = 65_536
_QUERIES = 32_768  # of a block: many, so that products are large


@dataclass(frozen=True)
class NearRows:
    """N fixed rows in lists.

    Attributes:
        rows: (N, D) float32, less `mean`, those of a list together.
        order: (N,) int64, the number of each.
        bounds: (L + 1,) int64, where each list begins.
        centres: (L, D) float32, of the lists.
        mean: (D,) float32, of the rows as given; 0 where they are all in one list.
        probes: Lists that are looked at.
        recall: Share of the true neighbours that were found so, in [0, 1].
    """

    rows: np.ndarray
    order: np.ndarray
    bounds: np.ndarray
    centres: np.ndarray
    mean: np.ndarray
    probes: int
    recall: float

    def search(self, queries: np.ndarray, count: int, backend: Backend, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the `count` nearest rows of queries.

        Args:
            queries: (M, D) float32.
            count: At most N.
            backend: Searches where all rows are in one list.
            threads: That search otherwise.

        Returns:
            Their numbers (M, count) int64, nearest first, and Euclidean distances (M, count) float32.
        """
        if len(self.centres) == 1:
            return backend.find_nearest(queries, self._place_rows(backend), count)
        parts = [
            self._search_block(queries[start : start + _QUERIES] - self.mean, count, threads)
            for start in range(0, len(queries), _QUERIES)
        ]
        return np.concatenate([near for near, _ in parts]), np.concatenate([lengths for _, lengths in parts])

    @cached_property
    def squared(self) -> np.ndarray:
        """Squared norms (N,) float32 of the rows."""
        return np.einsum("ij,ij->i", self.rows, self.rows)

    def _place_rows(self, backend: Backend) -> Rows:
        """Rows on the backend's device, where they are put once."""
        if "placed" not in self.__dict__:
            self.__dict__["placed"] = backend.put(self.rows)
        placed: Rows = self.__dict__["placed"]
        return placed

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lies on a device."""
        return {name: value for name, value in self.__dict__.items() if name != "placed"}

    def _search_block(self, queries: np.ndarray, count: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        from fastcomus.backends.neighbor_lists import NeighborLists  # numba takes half a second to load

        wanted = import_faiss().knn(queries, self.centres, self.probes)[1]
        lists, squared = NeighborLists(len(queries), count), self.squared

        def look(part: np.ndarray) -> None:
            asked = wanted[part].ravel()
            by_list = np.argsort(asked, kind="stable")  # places in the (P, probes) table, list by list
            starts = np.searchsorted(asked[by_list], np.arange(len(self.centres) + 1))
            for number in np.flatnonzero(np.diff(starts)):
                own = slice(*self.bounds[number : number + 2])
                targets = part[by_list[starts[number] : starts[number + 1]] // self.probes]
                lists.take_run(queries[targets] @ self.rows[own].T, targets, own.start, squared[own])

        with start_threads(threads) as workers:
            workers.map(look, np.array_split(np.arange(len(queries)), threads))
        near, scores = lists.ids, lists.scores
        # Lists with too few rows: the nearest counts again.
        near, scores = np.where(near < 0, near[:, :1], near), np.where(near < 0, scores[:, :1], scores)
        own = np.einsum("ij,ij->i", queries, queries)[:, None]
        return self.order[near], np.sqrt(np.maximum(own + scores, 0))


def is_searched_exactly(expected: int, rows: int, recall: float, backend: Backend) -> bool:
    """Tell whether all pairs of so many queries and rows are compared; by a GPU always, which soon has done it."""
    return expected * rows <= _ALL_PAIRS or recall == 1 or backend.device_name != "cpu"


def divide_rows(
    rows: np.ndarray, queries: np.ndarray, expected: int, count: int, recall: float, seed: int, backend: Backend
) -> NearRows:
    """Divide rows into lists and find how many of them must be looked at.

    Args:
        rows: (N, D) float32, N >= 1.
        queries: (S, D) float32, a sample of those to come.
        expected: How many queries are to come; where all pairs are few, a single list holds all rows.
        count: Rows to find for each, at most N.
        recall: Share of the true neighbours to find, in (0, 1].
        seed: Seed of the k-means that makes the lists.
        backend: Finds true neighbours of the sample.

    Returns:
        The lists; `NearRows.recall` is what was measured on the sample.
    """
    if is_searched_exactly(expected, len(rows), recall, backend):
        bounds, centres = np.array([0, len(rows)]), np.zeros((1, rows.shape[1]), np.float32)
        return NearRows(rows, np.arange(len(rows)), bounds, centres, centres[0], 1, 1.0)
    mean, lists = rows.mean(axis=0, dtype=np.float64).astype(np.float32), round(_LISTS * math.sqrt(len(rows)))
    faiss = import_faiss()
    chosen = np.random.default_rng(seed).permutation(len(rows))[: lists * _TRAINING_ROWS]
    means = faiss.Kmeans(rows.shape[1], lists, niter=_ITERATIONS, seed=seed, max_points_per_centroid=_TRAINING_ROWS)
    means.train(rows[np.sort(chosen)] - mean)
    centres = means.centroids
    owner = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        owner[part] = faiss.knn(rows[part] - mean, centres, 1)[1][:, 0]
    filled, owner = np.unique(owner, return_inverse=True)  # a query whose lists are all empty would find nothing
    centres, lists = centres[filled], len(filled)
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(lists + 1))
    placed = np.empty_like(rows, order="C")
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        placed[part] = rows[order[part]] - mean
    true = backend.find_nearest(queries, rows, count)[0]
    ranks = np.argsort(faiss.knn(queries - mean, centres, lists)[1], axis=1)  # of each list, by its centre's distance
    needed = np.sort(np.take_along_axis(ranks, owner[true], axis=1).ravel())
    probes = int(needed[min(len(needed) - 1, math.ceil(recall * len(needed)) - 1)]) + 1
    reached = float(np.searchsorted(needed, probes) / len(needed))
    return NearRows(placed, order, bounds, centres, mean, probes, reached)
