"""Nearest neighbours among all pairs by torch, on any device: blocks of matrix products, of which the best are kept.

Products may be taken in bfloat16: more candidates are kept then, and their distances are computed anew in float32, from
differences. Rows lie on the device where they fit into a part of its free memory; else they come in blocks from the
host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.machine import has_bfloat16, measure_free_bytes, move_to_device
from fastcomus.backends.nearest_neighbors import measure_recall

_LEAST_OF_ALL_PAIRS = 0.999  # recall of products in bfloat16; below it, they are taken in float32
_SAMPLE = 100  # rows whose neighbours are also found in float32, to measure it
_MORE_CANDIDATES = {torch.bfloat16: 2.0, torch.float32: 4 / 3}  # over the neighbours wanted
_SHARE_OF_ROWS = 0.5  # of the free memory that the rows may take
_SHARE_OF_BLOCKS = 0.3  # the same, for scores and candidates
_MOST_BLOCK_BYTES = 2**31  # more does not make products faster
_BLOCK_ROWS = 65_536  # compared with queries at once
_MOST_QUERIES = 16_384
_BYTES_OF_SCORE = 12  # products, scores, and what choosing the best takes


@dataclass(frozen=True)
class BlockPlan:
    """How all pairs are looked at.

    `is_resident`: whether all rows lie on the device. `queries`: rows whose neighbours are sought at once.
    """

    is_resident: bool
    queries: int


def plan_blocks(rows: int, dimension: int, candidates: int, free_bytes: int) -> BlockPlan:
    """Plan a search so that it fits into memory.

    Args:
        rows: Number of rows.
        dimension: Values in a row.
        candidates: Kept for each query.
        free_bytes: Free memory of the device.
    """
    is_resident = rows * (6 * dimension + 4) <= _SHARE_OF_ROWS * free_bytes
    budget = min(_SHARE_OF_BLOCKS * free_bytes, _MOST_BLOCK_BYTES)
    per_query = min(rows, _BLOCK_ROWS) * _BYTES_OF_SCORE + candidates * (4 * dimension + 32)
    return BlockPlan(is_resident, int(min(_MOST_QUERIES, rows, max(1, budget // per_query))))


def find_neighbors_by_products(
    rows: CentredRows, count: int, recall: float, seed: int, devices: Sequence[torch.device]
) -> tuple[np.ndarray, float]:
    """Find the nearest rows of every row among all pairs.

    Args:
        rows: N rows.
        count: Rows to find, the row itself included, where it is not pushed out by equal ones.
        recall: Below 1, products may be in bfloat16, where the device is faster at it and it finds 0.999 of the true
            neighbours of a sample.
        seed: Of that sample.
        devices: Share the queries.

    Returns:
        Indices (N, count) int32, nearest first, and their recall: 1, or as measured on the sample.
    """
    own = np.arange(len(rows))
    if recall < 1 and has_bfloat16(devices[0]):
        sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False))
        farthest = search_by_products(rows[sample], rows, count, torch.float32, devices)[0][:, -1]
        trial = search_by_products(rows[sample], rows, count, torch.bfloat16, devices)[1]
        reached = measure_recall(rows, sample, trial, farthest, count)
        if reached >= _LEAST_OF_ALL_PAIRS:
            return search_by_products(own, rows, count, torch.bfloat16, devices)[1].astype(np.int32), reached
    return search_by_products(own, rows, count, torch.float32, devices)[1].astype(np.int32), 1.0


@torch.inference_mode()
def search_by_products(
    queries: np.ndarray, rows: CentredRows, count: int, precision: torch.dtype, devices: Sequence[torch.device]
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of queries.

    Args:
        queries: (M, D) float32, centred as `rows` are; or (M,) integers, the numbers of the rows that are the queries.
        rows: N rows, centred.
        count: Rows to find, at most N.
        precision: Of the products, float32 or bfloat16.
        devices: Share the queries.

    Returns:
        Squared distances (M, count) float32, computed from differences, and indices (M, count) int64, nearest first.
    """
    distances = np.empty((len(queries), count), np.float32)
    found = np.empty((len(queries), count), np.int64)
    candidates = min(len(rows), int(np.ceil(_MORE_CANDIDATES[precision] * count)))
    plan = plan_blocks(len(rows), rows.dimension, candidates, min(measure_free_bytes(one) for one in devices))

    def search(place: int) -> None:
        base = _Base(rows, precision, devices[place], plan.is_resident)
        for start in range(place * plan.queries, len(queries), len(devices) * plan.queries):
            part = slice(start, start + plan.queries)
            near, ids = base.search(queries[part], count, candidates)
            distances[part], found[part] = near.cpu().numpy(), ids.cpu().numpy()

    if len(devices) == 1:
        search(0)
    else:
        with ThreadPoolExecutor(len(devices)) as pool:
            list(pool.map(torch.inference_mode()(search), range(len(devices))))
    return distances, found


class _Base:
    """The rows that queries are compared with, on one device or beside it."""

    def __init__(self, rows: CentredRows, precision: torch.dtype, device: torch.device, is_resident: bool) -> None:
        self.rows, self.precision, self.device = rows, precision, device
        self.whole = torch.empty(0, rows.dimension)
        self.blocks: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        if is_resident:
            self.whole = torch.empty(len(rows), rows.dimension, device=device)
            for start, block in rows.iterate_blocks():
                self.whole[start : start + len(block)] = move_to_device(torch.from_numpy(block), device)
            self.blocks = [
                self._prepare(start, self.whole[start : start + _BLOCK_ROWS]) for start in self._list_starts()
            ]

    def search(self, queries: np.ndarray, count: int, candidates: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See `search_by_products`; the results stay on the device."""
        wide = self._gather(queries) if queries.ndim == 1 else self._send(queries)
        low = wide.to(self.precision)
        scores = wide.new_empty((len(wide), 0))
        found = torch.empty((len(wide), 0), dtype=torch.int64, device=self.device)
        for start, block, squared in self.blocks or self._iterate_blocks():
            product = (low @ block.T).float()  # bfloat16 has too few digits for the difference
            near, places = torch.add(squared, product, alpha=-2).topk(
                min(candidates, len(block)), dim=1, largest=False, sorted=False
            )
            scores, found = torch.cat([scores, near], 1), torch.cat([found, places + start], 1)
            if scores.shape[1] > candidates:
                scores, best = scores.topk(candidates, dim=1, largest=False, sorted=False)
                found = found.gather(1, best)
        found = found.sort(dim=1).values  # of equally near rows the first one comes first
        others = self._gather(found.flatten()).view(*found.shape, -1)
        distances = others.sub_(wide[:, None]).square_().sum(2)
        order = distances.argsort(dim=1, stable=True)[:, :count]
        return distances.gather(1, order), found.gather(1, order)

    def _iterate_blocks(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        for start in self._list_starts():
            yield self._prepare(start, self._send(self.rows[start : start + _BLOCK_ROWS]))

    def _prepare(self, start: int, block: torch.Tensor) -> tuple[int, torch.Tensor, torch.Tensor]:
        """A block in the precision of the products, and its squared lengths (1, B), which are those of what is left."""
        low = block.to(self.precision)
        return start, low, low.float().square().sum(1)[None]

    def _list_starts(self) -> range:
        return range(0, len(self.rows), _BLOCK_ROWS)

    def _gather(self, numbers: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Rows by number, (n, D) float32 on the device."""
        if len(self.whole):
            return self.whole[torch.as_tensor(numbers, device=self.device)]
        return self._send(self.rows[np.asarray(numbers.cpu() if isinstance(numbers, torch.Tensor) else numbers)])

    def _send(self, rows: np.ndarray) -> torch.Tensor:
        return move_to_device(torch.from_numpy(rows), self.device)


def put_own_first(found: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Put every row's own index first, in place of the last if it was missing, and in place of -1.

    Args:
        found: (N, n) integers, -1 for none.
        own: (N,) indices of the rows; None for 0 to N - 1.

    Returns:
        (N, n) int32.
    """
    rows = (torch.arange(len(found)) if own is None else torch.from_numpy(own))[:, None]
    indices = torch.from_numpy(np.ascontiguousarray(found))
    rows = rows.to(indices.dtype)
    indices = torch.where(indices < 0, rows, indices)
    is_own = indices == rows
    is_own[~is_own.any(1), -1] = True
    others = torch.argsort(is_own.int(), dim=1, stable=True)[:, :-1]  # in their order, its own behind them
    return torch.cat([rows, torch.gather(indices, 1, others)], dim=1).int().numpy()
