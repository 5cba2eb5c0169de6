"""Lists of nearest rows against plain sorting, whatever is offered, in whatever order and by however many threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcomus.backends.compiled import compile_function
from fastcomus.backends.neighbor_lists import NeighborLists, Offer
from fastcomus.backends.threads import start_threads


def random_offers(rows: np.ndarray, rng: np.random.Generator, count: int) -> list[Offer]:
    """Targets and candidates at random: some twice, some none, some of a row to itself."""
    squared = np.append((rows**2).sum(axis=1), np.float32(np.inf))  # of -1: none
    offers = []
    for _ in range(count):
        targets = rng.integers(-1, len(rows), (2, 5)).astype(np.int32)
        candidates = rng.integers(-1, len(rows), (2, rng.integers(1, 41))).astype(np.int32)
        products = rows[targets] @ rows[candidates].transpose(0, 2, 1)
        offers.append(Offer(products, targets, candidates, squared[candidates]))
    return offers


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 3))
def test_lists_hold_the_best_of_what_was_offered(seed: int, length: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, 6)).astype(np.float32)
    offers = random_offers(rows, rng, 12)
    lists = NeighborLists(len(rows), length)
    with start_threads(threads) as workers:
        lists.take([lambda offer=offer: [offer] for offer in offers], workers)
    offered: list[set[int]] = [set() for _ in rows]
    for offer in offers:
        for targets, candidates in zip(offer.targets, offer.candidates, strict=True):
            for target in targets[targets >= 0]:
                offered[target] |= set(candidates[candidates >= 0].tolist()) - {int(target)}
    for row, candidates in enumerate(offered):
        best = sorted(candidates, key=lambda other: float(((rows[other] - rows[row]) ** 2).sum()))[:length]
        assert lists.ids[row].tolist() == best + [-1] * (length - len(best))
        assert (lists.fresh[row] == (lists.ids[row] >= 0)).all()


def test_rows_around_a_row_come_with_the_fresh_ones_first() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 4)).astype(np.float32)
    lists = NeighborLists(50, 4)
    with start_threads(1) as workers:
        lists.take([lambda offer=offer: [offer] for offer in random_offers(rows, rng, 30)], workers)
    lists.fresh[:] = rng.random(lists.fresh.shape) < 0.5
    fresh = lists.fresh.copy()
    linking, link_is_fresh = lists.find_linking_rows(6)
    for row in range(50):
        links = linking[row][linking[row] >= 0]
        theirs = {other for other in range(50) if row in lists.ids[other]} - set(lists.ids[row].tolist())
        assert set(links.tolist()) <= theirs and len(links) == min(6, len(theirs))
    around = lists.gather_surroundings(10, 20, linking, link_is_fresh, 5)
    for row, members in zip(range(10, 20), around, strict=True):
        entries = [*zip(lists.ids[row].tolist(), fresh[row], strict=True)]
        entries += zip(linking[row].tolist(), link_is_fresh[row], strict=True)
        wanted = [entry for entry, is_fresh in entries if is_fresh and entry >= 0][:5]
        assert members[: len(wanted)].tolist() == wanted
        assert sorted(members.tolist()) == sorted(entry for entry, _ in entries)
        cleared = {entry for entry, is_fresh in entries[:4] if is_fresh} & set(wanted)
        assert not lists.fresh[row][np.isin(lists.ids[row], list(cleared))].any()
    assert (lists.fresh[20:] == fresh[20:]).all()


def test_code_is_compiled_also_where_it_cannot_be_kept() -> None:
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(eval("lambda x: x + 1"), cache=True)
    assert compile_function(eval("lambda x: x + 1"))(4) == 5


@pytest.mark.parametrize("threads", [1, 2])
def test_what_fails_in_a_thread_is_raised(threads: int) -> None:
    def fail() -> list[Offer]:
        raise ArithmeticError("as planned")

    with start_threads(threads) as workers, pytest.raises(ArithmeticError, match="as planned"):
        NeighborLists(5, 2).take([fail], workers)
