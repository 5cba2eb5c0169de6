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
    rows: CentredRows | torch.Tensor, count: int, recall: float, seed: int, devices: Sequence[torch.device]
) -> tuple[torch.Tensor, float]:
    """Find the nearest rows of every row among all pairs.

    Args:
        rows: N rows of the host, or on the first device as `centre_rows` gives them.
        count: Rows to find, the row itself included, where it is not pushed out by equal ones.
        recall: Below 1, products may be in bfloat16, where the device is faster at it and it finds 0.999 of the true
            neighbours of a sample.
        seed: Of that sample.
        devices: Share the queries.

    Returns:
        Indices (N, count) int32, nearest first, where the rows are, and their recall: 1, or as measured on the sample.
    """
    search = ProductSearch(rows, count, devices)
    own = torch.arange(len(rows), device=search.home)
    if recall < 1 and has_bfloat16(devices[0]):
        drawn = np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False)
        sample = torch.from_numpy(np.sort(drawn)).to(search.home)
        farthest = search.find(sample, torch.float32)[0][:, -1:]
        trial = search.find(sample, torch.bfloat16)[0]
        reached = float((trial <= farthest * (1 + 1e-4) + 1e-12).double().mean())
        if reached >= _LEAST_OF_ALL_PAIRS:
            return search.find(own, torch.bfloat16)[1].int(), reached
    return search.find(own, torch.float32)[1].int(), 1.0


def has_room(rows: int, dimension: int, free_bytes: int) -> bool:
    """Tell whether rows fit on a device with a centred copy of them, and what the search keeps beside these."""
    return rows * (10 * dimension + 4) <= _SHARE_OF_ROWS * free_bytes


def measure_centring(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find what centres and scales rows (N, D) float32 on their device, as `CentredRows` does it.

    Returns:
        The factor, and (D,) float32 that is subtracted after scaling.
    """
    mean = rows.mean(0, dtype=torch.float64)
    largest = torch.maximum((rows.amax(0) - mean).abs().max(), (rows.amin(0) - mean).abs().max())
    scale = torch.exp2((-torch.frexp(largest).exponent).clamp(max=126).double())  # a power of two
    return scale.float(), (mean * scale).float()


class ProductSearch:
    """Search for the nearest of N rows, which go to the devices once, however often they are searched.

    `home`: Where the results are: the rows' device.

    Args:
        rows: N rows, centred: of the host, or on the first device.
        count: Rows to find for each query, at most N.
        devices: Share the queries.
    """

    def __init__(self, rows: CentredRows | torch.Tensor, count: int, devices: Sequence[torch.device]) -> None:
        self.count, self.home = count, rows.device if isinstance(rows, torch.Tensor) else torch.device("cpu")
        self._candidates = {
            precision: min(len(rows), int(np.ceil(more * count))) for precision, more in _MORE_CANDIDATES.items()
        }
        free_bytes = min(measure_free_bytes(one) for one in devices)
        dimension = rows.shape[1] if isinstance(rows, torch.Tensor) else rows.dimension
        self._plan = plan_blocks(len(rows), dimension, max(self._candidates.values()), free_bytes)
        self._bases = [_Base(rows, device, self._plan.is_resident) for device in devices]

    @torch.inference_mode()
    def find(self, queries: torch.Tensor, precision: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the nearest rows of queries.

        Args:
            queries: (M, D) float32, centred as the rows are; or (M,) integers, the numbers of the rows that are the
                queries.
            precision: Of the products, float32 or bfloat16.

        Returns:
            Squared distances (M, count) float32, computed from differences, and indices (M, count) int64, nearest
            first; both at `home`.
        """
        distances = torch.empty((len(queries), self.count), device=self.home)
        found = torch.empty((len(queries), self.count), dtype=torch.int64, device=self.home)
        step, candidates = self._plan.queries, self._candidates[precision]

        def search(place: int) -> None:
            for start in range(place * step, len(queries), len(self._bases) * step):
                part = slice(start, start + step)
                distances[part], found[part] = self._bases[place].search(
                    queries[part], self.count, candidates, precision
                )

        if len(self._bases) == 1:
            search(0)
        else:
            with ThreadPoolExecutor(len(self._bases)) as pool:
                list(pool.map(torch.inference_mode()(search), range(len(self._bases))))
        return distances, found


class _Base:
    """The rows that queries are compared with, on one device or beside it."""

    @torch.inference_mode()
    def __init__(self, rows: CentredRows | torch.Tensor, device: torch.device, is_resident: bool) -> None:
        self.rows, self.device = rows, device
        self.whole: torch.Tensor | None = None
        self.blocks: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self.precision: torch.dtype | None = None  # of these blocks
        if isinstance(rows, torch.Tensor):
            self.whole = rows.to(device)
        elif is_resident:
            self.whole = torch.empty(len(rows), rows.dimension, device=device)
            for start, block in rows.iterate_blocks():
                self.whole[start : start + len(block)] = move_to_device(torch.from_numpy(block), device)

    def search(
        self, queries: torch.Tensor, count: int, candidates: int, precision: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ProductSearch.find`; the results stay on the device."""
        wide = self._gather(queries) if queries.ndim == 1 else move_to_device(queries, self.device)
        low = wide.to(precision)
        scores = wide.new_empty((len(wide), 0))
        found = torch.empty((len(wide), 0), dtype=torch.int64, device=self.device)
        for start, block, squared in self._iterate_blocks(precision):
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

    def _iterate_blocks(self, precision: torch.dtype) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield blocks in the precision of the products, each with its first row's number and its squared lengths."""
        starts, whole = range(0, len(self.rows), _BLOCK_ROWS), self.whole
        if whole is None:
            return (_prepare_block(one, self._send(slice(one, one + _BLOCK_ROWS)), precision) for one in starts)
        if precision != self.precision:
            self.precision, self.blocks = precision, []
            self.blocks += [_prepare_block(one, whole[one : one + _BLOCK_ROWS], precision) for one in starts]
        return iter(self.blocks)

    def _gather(self, numbers: torch.Tensor) -> torch.Tensor:
        """Rows by number, (n, D) float32 on the device."""
        return self._send(numbers.cpu().numpy()) if self.whole is None else self.whole[numbers.to(self.device)]

    def _send(self, chosen: slice | np.ndarray) -> torch.Tensor:
        assert isinstance(self.rows, CentredRows)
        return move_to_device(torch.from_numpy(self.rows[chosen]), self.device)


def _prepare_block(start: int, block: torch.Tensor, precision: torch.dtype) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Round a block, and give the squared lengths (1, B) of what is left of its rows."""
    low = block.to(precision)
    return start, low, low.float().square().sum(1)[None]


def put_own_first(found: torch.Tensor, own: torch.Tensor | None = None) -> torch.Tensor:
    """Put every row's own index first, in place of the last if it was missing, and in place of -1.

    Args:
        found: (N, n) integers, -1 for none.
        own: (N,) indices of the rows; None for 0 to N - 1.

    Returns:
        (N, n) int32.
    """
    rows = (torch.arange(len(found), device=found.device) if own is None else own)[:, None].to(found.dtype)
    indices = torch.where(found < 0, rows, found)
    is_own = indices == rows
    is_own = torch.cat([is_own[:, :-1], is_own[:, -1:] | ~is_own.any(1, keepdim=True)], dim=1)
    others = torch.argsort(is_own.int(), dim=1, stable=True)[:, :-1]  # in their order, its own behind them
    return torch.cat([rows, torch.gather(indices, 1, others)], dim=1).int()
