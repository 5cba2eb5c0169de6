"""Lists of the nearest rows found so far, to which blocks of matrix products are offered; compiled by numba."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.compiled import compile_function
from fastcomus.backends.threads import Threads

_GROUP = 8  # jobs whose offers are held at once; another number gives other lists
_WORD = 8  # flags that are looked at together
_TWO = np.float32(2)  # numba would compute with a plain 2 in float64


@dataclass(frozen=True)
class Offer:
    """Candidates offered to target rows: each row of `candidates[b, :]` to each row `targets[b, r]`.

    `products`: (B, R, C) float32, their scalar products. `targets`: (B, R) int32, -1 for none.
    `candidates`: (B, C) int32, -1 for none. `squared`: (B, C) float32, squared norms of the candidates, infinite for
    none.
    """

    products: np.ndarray
    targets: np.ndarray
    candidates: np.ndarray
    squared: np.ndarray


class NeighborLists:
    """For each of N rows the `length` nearest other rows among those offered so far, nearest first.

    `ids`: (N, length) int32, -1 for none. `scores`: (N, length) float32, squared distance minus the row's own squared
    norm. `fresh`: (N, length) bool, whether an entry was added since its flag was last cleared.
    """

    def __init__(self, rows: int, length: int) -> None:
        self.ids = np.full((rows, length), -1, np.int32)
        self.scores = np.full((rows, length), np.inf, np.float32)
        self.fresh = np.zeros((rows, length), bool)
        self._bounds = np.full(rows, np.inf, np.float32)  # each list's last score, packed: read for every offer

    def take(self, jobs: Iterable[Callable[[], Sequence[Offer]]], threads: Threads) -> None:
        """Insert the offers that all jobs compute into the lists.

        Jobs run in groups; then each thread inserts all offers of the group, in order, for the rows that it owns, so
        that the lists do not depend on the number of threads.
        """
        waiting = iter(jobs)
        while group := list(islice(waiting, _GROUP)):
            offers = [offer for made in threads.map(lambda job: job(), group) for offer in made]

            def take(owner: int, offers: list[Offer] = offers) -> None:
                for offer in offers:
                    state = self.ids, self.scores, self.fresh, self._bounds
                    _offer(offer.products, offer.targets, offer.candidates, offer.squared, *state, owner, threads.count)

            threads.map(take, range(threads.count))

    def take_run(self, products: np.ndarray, targets: np.ndarray, first: int, squared: np.ndarray) -> None:
        """Offer a run of other rows to some of those that have lists, in one thread.

        Of equally near rows the first is kept; none is offered twice to the same. Threads may call it at once for
        targets of their own.

        Args:
            products: (R, C) float32, scalar products.
            targets: (R,) int64, numbers of the lists.
            first: Number of the first of C rows.
            squared: (C,) float32, their squared norms.
        """
        _offer_to_rows(products, targets, first, squared, self.ids, self.scores, self._bounds)

    def find_linking_rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find for each row up to `count` others that list it and are not in its own list.

        Returns:
            Ids (N, count) int32, -1 for none, first those that rank the row first; and whether each link is fresh.
        """
        linking: tuple[np.ndarray, np.ndarray] = _collect_linking_rows(self.ids, self.fresh, count)
        return linking

    def gather_surroundings(
        self, first: int, last: int, linking: np.ndarray, is_fresh: np.ndarray, fresh_count: int
    ) -> np.ndarray:
        """Gather the rows in the lists of the rows [first, last), and those that link to them.

        Returns (last - first, L) int32, -1 for none. `fresh_count` fresh ones come first; their flags are cleared.
        """
        around = np.empty((last - first, self.ids.shape[1] + linking.shape[1]), np.int32)
        _fill_surroundings(self.ids, self.fresh, linking, is_fresh, first, fresh_count, around)
        return around

    def rank_nearest(self, rows: CentredRows, numbers: np.ndarray, count: int, threads: Threads) -> np.ndarray:
        """Find the `count` nearest of each list, (N, count) int32, by distances anew; `numbers`: row of each id."""
        found = np.empty((len(self.ids), count), np.int32)
        bounds = np.linspace(0, len(self.ids), threads.count + 1).astype(int)
        moved = rows.rows, np.float32(rows.scale), rows.shift
        threads.map(lambda i: _rank(*moved, numbers, self.ids, found, bounds[i], bounds[i + 1]), range(threads.count))
        return found


@compile_function
def _offer(products, targets, candidates, squared, ids, scores, fresh, bounds, owner, owners):  # type: ignore[no-untyped-def]
    length, columns = ids.shape[1], products.shape[2]
    flags = np.zeros(-(-columns // _WORD) * _WORD, np.uint8)
    words = flags.view(np.uint64)
    for block in range(targets.shape[0]):
        norms = squared[block]
        for row in range(targets.shape[1]):
            target = targets[block, row]
            if target < 0 or target % owners != owner:
                continue
            bound, near = bounds[target], products[block, row]
            for column in range(columns):  # without a branch: many at once
                flags[column] = norms[column] - _TWO * near[column] < bound
            for word in range(words.shape[0]):
                if not words[word]:
                    continue
                for column in range(word * _WORD, min(word * _WORD + _WORD, columns)):
                    score = norms[column] - _TWO * near[column]
                    if not score < bound:
                        continue
                    candidate = candidates[block, column]
                    if candidate == target:
                        continue
                    is_known = False
                    for place in range(length):
                        is_known |= ids[target, place] == candidate
                    if is_known:
                        continue
                    place = length - 1
                    while place > 0 and scores[target, place - 1] > score:
                        scores[target, place] = scores[target, place - 1]
                        ids[target, place] = ids[target, place - 1]
                        fresh[target, place] = fresh[target, place - 1]
                        place -= 1
                    scores[target, place] = score
                    ids[target, place] = candidate
                    fresh[target, place] = True
                    bound = scores[target, length - 1]
                    bounds[target] = bound


@compile_function
def _offer_to_rows(products, targets, first, squared, ids, scores, bounds):  # type: ignore[no-untyped-def]
    columns = products.shape[1]
    flags = np.zeros(-(-columns // _WORD) * _WORD, np.uint8)
    words = flags.view(np.uint64)
    for row in range(targets.shape[0]):
        target, near = targets[row], products[row]
        bound = bounds[target]
        for column in range(columns):  # without a branch: many at once
            flags[column] = squared[column] - _TWO * near[column] <= bound
        for word in range(words.shape[0]):
            if words[word]:
                for column in range(word * _WORD, min(word * _WORD + _WORD, columns)):
                    score = squared[column] - _TWO * near[column]
                    if score <= bound:
                        _insert(target, first + column, score, ids, scores, bounds)
                        bound = bounds[target]


@compile_function
def _insert(target, candidate, score, ids, scores, bounds):  # type: ignore[no-untyped-def]
    place = ids.shape[1] - 1
    if score > scores[target, place] or score == np.inf:
        return
    if score == scores[target, place] and candidate > ids[target, place] >= 0:
        return
    while place > 0 and (
        scores[target, place - 1] > score or (scores[target, place - 1] == score and ids[target, place - 1] > candidate)
    ):
        scores[target, place] = scores[target, place - 1]
        ids[target, place] = ids[target, place - 1]
        place -= 1
    scores[target, place], ids[target, place] = score, candidate
    bounds[target] = scores[target, ids.shape[1] - 1]


@compile_function
def _collect_linking_rows(ids, fresh, count):  # type: ignore[no-untyped-def]
    rows, length = ids.shape
    linking = np.full((rows, count), -1, np.int32)
    is_fresh = np.zeros((rows, count), np.bool_)
    used = np.zeros(rows, np.int32)
    for place in range(length):
        for row in range(rows):
            target = ids[row, place]
            if target < 0 or used[target] == count:
                continue
            is_known = False
            for other in range(length):
                is_known |= ids[target, other] == row
            if not is_known:
                linking[target, used[target]] = row
                is_fresh[target, used[target]] = fresh[row, place]
                used[target] += 1
    return linking, is_fresh


@compile_function
def _fill_surroundings(ids, fresh, linking, link_is_fresh, first, fresh_count, around):  # type: ignore[no-untyped-def]
    length = ids.shape[1]
    for block in range(around.shape[0]):
        row = first + block
        front, back = 0, around.shape[1] - 1
        for place in range(around.shape[1]):
            if place < length:
                entry, is_fresh = ids[row, place], fresh[row, place]
            else:
                entry, is_fresh = linking[row, place - length], link_is_fresh[row, place - length]
            if entry >= 0 and is_fresh and front < fresh_count:
                around[block, front] = entry
                front += 1
                if place < length:
                    fresh[row, place] = False
            else:
                around[block, back] = entry
                back -= 1


@compile_function
def _rank(rows, scale, shift, numbers, ids, found, first, last):  # type: ignore[no-untyped-def]
    length, count, size = ids.shape[1], found.shape[1], rows.shape[1]
    distances, centred = np.empty(length, np.float32), np.empty((2, size), np.float32)
    order = np.empty(length, np.int64)
    for row in range(first, last):
        _centre(rows[numbers[row]], scale, shift, centred[0])
        for place in range(length):
            distances[place] = np.inf
            if ids[row, place] >= 0:
                _centre(rows[numbers[ids[row, place]]], scale, shift, centred[1])
                total = np.float32(0)
                for column in range(size):
                    difference = centred[0, column] - centred[1, column]
                    total += difference * difference
                distances[place] = total
            # Sorted by insertion: they nearly are, and numba takes four seconds to compile argsort.
            rank = place
            while rank > 0 and distances[order[rank - 1]] > distances[place]:
                order[rank] = order[rank - 1]
                rank -= 1
            order[rank] = place
        for place in range(count):
            found[row, place] = ids[row, order[place]]


@compile_function
def _centre(row, scale, shift, centred):  # type: ignore[no-untyped-def]
    """Centre a row as `CentredRows` does, to the digit: the product with a power of two is exact."""
    for column in range(row.shape[0]):
        centred[column] = row[column] * scale - shift[column]
