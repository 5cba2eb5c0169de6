"""Nearest neighbours among all pairs of rows, by matrix products in float32."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Lock, local

import numpy as np

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.neighbor_lists import NeighborLists
from fastcomus.backends.threads import Threads

_TILE = 768  # rows whose pairs with as many others are one product


def search_all_pairs(rows: CentredRows, count: int, threads: Threads) -> np.ndarray:
    """Find the nearest other rows, (N, count) int32, -1 for none; each product serves both of its rows.

    Args:
        rows: N rows.
        count: Other rows to find.
        threads: Compute the products.
    """
    n, vectors = len(rows), rows[:]
    lists, squared = NeighborLists(n, count), np.einsum("ij,ij->i", vectors, vectors)
    starts = range(0, n, _TILE)
    locks, own = [Lock() for _ in starts], local()

    def compare(pair: tuple[int, int]) -> None:
        if not hasattr(own, "products"):  # new memory for each tile takes as long as a fifth of its products
            own.products = np.empty(_TILE * _TILE, np.float32)
        one, other = (vectors[starts[place] : starts[place] + _TILE] for place in pair)
        products = own.products[: len(one) * len(other)].reshape(len(one), len(other))
        np.matmul(one, other.T, out=products)
        with locks[pair[0]], locks[pair[1]] if pair[0] != pair[1] else nullcontext():
            lists.take_tile(products, starts[pair[0]], starts[pair[1]], squared)

    # By diagonals: two tiles that follow one another have no rows in common.
    threads.map(compare, [(i, i + apart) for apart in range(len(starts)) for i in range(len(starts) - apart)])
    return lists.rank_nearest(rows, np.arange(n), count, threads)
