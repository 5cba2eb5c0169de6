"""Nearest neighbours among all pairs of rows, by matrix products in float32."""

from __future__ import annotations

from threading import local

import numpy as np

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.nearest_rows import NearestRows, add_norms, count_rows_at_once, rank_by_differences, turn_norms
from fastcomus.backends.threads import Threads

_ROUNDING = 1e-5  # of the squared lengths: distances that differ by less may stand in the wrong order


def search_all_pairs(rows: CentredRows, count: int, threads: Threads) -> np.ndarray:
    """Find the nearest other rows, (N, count) int32; each product serves both of its rows.

    Args:
        rows: N rows.
        count: Other rows to find, at most N - 1.
        threads: Compute the products.
    """
    n, at_once = len(rows), count_rows_at_once(len(rows))
    others = add_norms(rows.rows, rows)
    looking = turn_norms(others)
    parts = [slice(start, min(start + at_once, n)) for start in range(0, n, at_once)]
    lists, own = [NearestRows(part.stop - part.start, count, n) for part in parts], local()

    def compare(pair: tuple[int, int]) -> None:
        if not hasattr(own, "products"):  # new memory for each tile takes as long as a fifth of its products
            own.products, own.flags = np.empty(at_once**2, np.float32), np.empty(at_once**2, bool)
        one, other = (parts[place] for place in pair)
        shape = one.stop - one.start, other.stop - other.start
        products = own.products[: shape[0] * shape[1]].reshape(shape)
        np.matmul(looking[one], others[other].T, out=products)
        if one == other:
            np.fill_diagonal(products, -np.inf)
        else:
            lists[pair[1]].offer(products, one.start, own.flags, by_column=True)
        lists[pair[0]].offer(products, other.start, own.flags)

    # First rows of the same part: they are near one another where rows lie in an order, and limit what is taken then.
    numbers = range(len(parts))
    threads.map(compare, [*((i, i) for i in numbers), *((i, j) for i in numbers for j in numbers[i + 1 :])])
    found, lengths = np.empty((n, count), np.int32), others[:, -1] * np.float32(-2)

    def rank(place: int) -> None:
        part = parts[place]
        ids, squared = lists[place].collect()
        scale = lengths[part, None] + lengths[ids].max(axis=1, keepdims=True)
        unsure = np.flatnonzero((np.diff(squared, axis=1) <= _ROUNDING * scale).any(axis=1))
        ids[unsure] = rank_by_differences(rows, rows[part.start + unsure], ids[unsure])[0]
        found[part] = ids

    threads.map(rank, range(len(parts)))
    return found
