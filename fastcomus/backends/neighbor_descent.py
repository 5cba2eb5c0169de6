"""Nearest neighbours among rows that are likely to be near, by matrix products (NN-descent by blocks)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.machine import has_bfloat16
from fastcomus.backends.neighbor_lists import NeighborLists, Offer
from fastcomus.backends.threads import Threads

_CHUNK = 128  # rows that are searched together
_PROBES = 24  # chunks whose rows are looked at first
_BATCH = 64  # rows whose surroundings are compared at once
_WIDENING = 1.6  # length of the lists over the neighbours wanted: more ways to others, and rounding pushes none out
_FULL_SURROUNDINGS = 4 / 3  # rows compared around a row, over its list's length, when all pairs are
_SURROUNDINGS = 5 / 3  # the same, when only pairs with a new row are
_FRESH = 1.25  # rows that count as new in a pass, over their mean number; the others wait for the next one
_PARTS_OF_A_PASS = 4  # after each of which it may stop
_MOST_PARTITIONS = 10
_LEAST_GAIN = 0.045  # of recall by a pass, to let another follow: a new partition into chunks gains more than a third
_LEAST_GAIN_OF_PARTITION = 0.002
_LEAST_TOLD_APART = 0.99  # of the true neighbours in lists from all rows' products in bfloat16, to use it
_AT_ONCE = 4_096  # rows converted at once
_TRAINING_ROWS = 32  # of a k-means, for each of its centres


def search_likely_pairs(
    rows: CentredRows,
    count: int,
    recall: float,
    sample: np.ndarray,
    recall_of: Callable[[np.ndarray], float],
    seed: int,
    threads: Threads,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest other rows of every row by comparing likely pairs, until the recall is reached or stops rising.

    The rows are ordered by k-means and cut into chunks, and each chunk is compared with the nearest chunks; then the
    same in another order. Then the rows around each row (those in its list, and those whose lists contain it) are
    compared with one another repeatedly (Dong et al., "Efficient k-nearest neighbor graph construction for generic
    similarity measures", 2011), with further orders when that gains little. Products are in bfloat16 where the
    processor has instructions for it and they tell the rows apart, else in float32.

    Args:
        rows: N rows.
        count: Other rows to find.
        recall: Share of the true neighbours to reach, in (0, 1].
        sample: (S,), the rows on which recall is measured.
        recall_of: Gives the recall of candidates (S, L) of the sample, -1 for none.
        seed: Seed of the k-means.
        threads: Compute the products.

    Returns:
        Neighbours (N, count) int32, nearest first, -1 for none; and the rows in an order where near ones are together,
        (N,) int64.
    """
    order = _order_rows(rows, seed, threads)
    places = np.empty(len(rows), np.int64)
    places[order] = np.arange(len(rows))
    lists = NeighborLists(len(rows), _round_up(_WIDENING * count))

    def reached() -> float:
        ids = lists.ids[places[sample]]
        return recall_of(np.where(ids >= 0, order[ids], -1))

    vectors, squared = _pad_rows(rows, order, _CHUNK, torch.bfloat16 if has_bfloat16() else torch.float32)
    if vectors.dtype == torch.bfloat16:
        _compare_sample(lists, vectors, squared, places[sample], threads)
        if reached() < _LEAST_TOLD_APART:
            del vectors, squared  # before the larger ones come
            vectors, squared = _pad_rows(rows, order, _CHUNK, torch.float32)
        lists = NeighborLists(len(rows), _round_up(_WIDENING * count))
    _compare_chunks(lists, vectors, squared, places[order], threads)
    now = reached()
    for partition in range(1, _MOST_PARTITIONS):
        if now >= recall:
            break
        at_first, gain = now, 1.0
        _compare_chunks(lists, vectors, squared, places[_order_rows(rows, seed + partition, threads)], threads)
        now = reached()
        while now < recall and gain > _LEAST_GAIN:
            before = now
            is_full = partition == 1 and gain == 1.0
            for _ in _compare_surroundings(lists, vectors, squared, is_full, threads):
                now = reached()
                if now >= recall:
                    break
            gain = now - before
        if now - at_first < _LEAST_GAIN_OF_PARTITION:
            break
    del vectors, squared  # they weigh as much as the rows, or half of it
    nearest = lists.rank_nearest(rows, order, count, threads)
    found = np.empty((len(rows), count), np.int32)
    numbers = np.append(order, -1).astype(np.int32)  # its last entry for those of -1
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found[order[part]] = numbers[nearest[part]]
    return found, order


def _order_rows(rows: CentredRows, seed: int, threads: Threads) -> np.ndarray:
    """Order the rows so that members of the same cluster of a two-level k-means are together: (N,) int64."""
    coarse = _run_coarse_kmeans(rows, max(1, round(math.sqrt(len(rows) / _CHUNK))), seed)
    order = np.argsort(coarse, kind="stable")

    def arrange(members: np.ndarray) -> None:
        fine = _run_quick_kmeans(rows[members], max(1, round(len(members) / _CHUNK)), seed)
        members[:] = members[np.argsort(fine, kind="stable")]

    threads.map(arrange, np.split(order, np.cumsum(np.bincount(coarse))[:-1]))
    return order


def _run_coarse_kmeans(rows: CentredRows, k: int, seed: int) -> np.ndarray:
    """Run `_run_quick_kmeans` on all rows block by block; FAISS trains on the rows that it would draw among all."""
    if k == 1 or len(rows) <= k:
        return np.zeros(len(rows), np.int32)
    import faiss

    drawn = np.empty(len(rows), np.int32)
    faiss.rand_perm(faiss.swig_ptr(drawn), len(rows), seed)  # type: ignore[attr-defined]
    index = _train_kmeans(rows[drawn[: _TRAINING_ROWS * k]] if len(rows) > _TRAINING_ROWS * k else rows[:], k, seed)
    return np.concatenate([index.search(block, 1)[1][:, 0].astype(np.int32) for _, block in rows.iterate_blocks()])


def _run_quick_kmeans(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Compute labels (N,) by a quick k-means, which only has to bring near rows together."""
    if k == 1 or len(rows) <= k:
        return np.zeros(len(rows), np.int64)
    return np.asarray(_train_kmeans(rows, k, seed).search(rows, 1)[1][:, 0])


def _train_kmeans(rows: np.ndarray, k: int, seed: int) -> Any:
    """Train an index (FAISS's) of k means of rows."""
    import faiss

    limits = {"max_points_per_centroid": _TRAINING_ROWS, "min_points_per_centroid": 1}
    found = faiss.Kmeans(rows.shape[1], k, niter=4, seed=seed, **limits)
    found.train(rows)
    return found.index


def _pad_rows(
    rows: CentredRows, order: np.ndarray, multiple: int, kind: torch.dtype
) -> tuple[torch.Tensor, np.ndarray]:
    """Copy `rows`[order] as `kind`, padded with zeros; and their squared norms (P,) float32, infinite for padding."""
    n = len(rows)
    vectors = torch.empty((-(-n // multiple) * multiple, rows.dimension), dtype=kind)
    vectors[n:] = 0
    squared = np.full(len(vectors), np.inf, np.float32)
    for start in range(0, n, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, n))
        vectors[part] = torch.from_numpy(rows[order[part]])
        squared[part] = (vectors[part].float() ** 2).sum(1)
    return vectors, squared


def _number_rows(n: int, padded: int) -> np.ndarray:
    """Make the int32 numbers 0, 1, ..., n - 1, then -1 up to the length `padded`."""
    numbers = np.full(padded, -1, np.int32)
    numbers[:n] = np.arange(n)
    return numbers


def _compare_chunks(
    lists: NeighborLists, vectors: torch.Tensor, squared: np.ndarray, arrangement: np.ndarray, threads: Threads
) -> None:
    """Compare rows with those of the chunks of nearest mean; `arrangement`: (N,), the order that is cut into chunks."""
    numbers = _number_rows(len(arrangement), len(vectors))
    numbers[: len(arrangement)] = arrangement
    numbers = numbers.reshape(-1, _CHUNK)
    squares = np.where(numbers >= 0, squared[numbers], np.float32(np.inf))
    chosen = torch.from_numpy(numbers.clip(0))
    import faiss

    means = torch.stack([vectors.index_select(0, chunk).float().mean(0) for chunk in chosen]).numpy()
    _, probes = faiss.knn(means, means, min(_PROBES, len(means)))

    def compare(chunk: int) -> list[Offer]:
        near = probes[chunk]
        # Indexing takes eight times as long as index_select.
        pool = vectors.index_select(0, chosen[torch.from_numpy(near)].flatten())
        products = (vectors.index_select(0, chosen[chunk]) @ pool.T).float().numpy()
        candidates, candidate_squares = numbers[near].reshape(1, -1), squares[near].reshape(1, -1)
        return [Offer(products[None], numbers[None, chunk], candidates, candidate_squares)]

    lists.take((partial(compare, chunk) for chunk in range(len(probes))), threads)


def _compare_sample(
    lists: NeighborLists, vectors: torch.Tensor, squared: np.ndarray, sample: np.ndarray, threads: Threads
) -> None:
    """Compare the rows `sample` (S,) with all rows."""
    chosen, targets = vectors[torch.from_numpy(sample)], sample[None].astype(np.int32)
    numbers = _number_rows(len(lists.ids), len(vectors))

    def compare(start: int) -> list[Offer]:
        part = slice(start, start + _AT_ONCE)
        products = (chosen @ vectors[part].T).float().numpy()
        return [Offer(products[None], targets, numbers[None, part], squared[None, part])]

    lists.take((partial(compare, start) for start in range(0, len(vectors), _AT_ONCE)), threads)


def _compare_surroundings(
    lists: NeighborLists, vectors: torch.Tensor, squared: np.ndarray, is_full: bool, threads: Threads
) -> Iterator[None]:
    """Compare the rows around each row: all pairs if `is_full`, else those with a new one, with yields in between."""
    length = lists.ids.shape[1]
    total = _round_up((_FULL_SURROUNDINGS if is_full else _SURROUNDINGS) * length)
    linking, is_fresh = lists.find_linking_rows(total - length)
    fresh_count = total
    if not is_full:
        fresh_count = min(total, _round_up(_FRESH * (lists.fresh.sum() + is_fresh.sum()) / len(linking)))

    def compare(around: np.ndarray) -> list[Offer]:
        squares = np.where(around >= 0, squared[around], np.float32(np.inf))
        members = vectors.index_select(0, torch.from_numpy(around.clip(0)).flatten()).view(*around.shape, -1)
        products = torch.bmm(members[:, :fresh_count], members.transpose(1, 2)).float()
        offers = [Offer(products.numpy(), around[:, :fresh_count], around, squares)]
        if fresh_count < total:
            turned = products[:, :, fresh_count:].transpose(1, 2).contiguous().numpy()
            offers.append(Offer(turned, around[:, fresh_count:], around[:, :fresh_count], squares[:, :fresh_count]))
        return offers

    def job(first: int) -> Callable[[], list[Offer]]:
        last = min(first + _BATCH, len(linking))
        return partial(compare, lists.gather_surroundings(first, last, linking, is_fresh, fresh_count))

    starts = range(0, len(linking), _BATCH)
    parts = 1 if is_full else _PARTS_OF_A_PASS
    for part in range(parts):
        lists.take(map(job, starts[part::parts]), threads)
        yield


def _round_up(number: float) -> int:
    """Round up to a multiple of 16; other lengths would give other lists."""
    return -(-math.ceil(number) // 16) * 16
