"""The nearest of what was offered against plain sorting, in whatever order it comes and however often it is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcomus.backends import nearest_rows
from fastcomus.backends.all_pairs import search_all_pairs
from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.nearest_neighbors import search_by_products
from fastcomus.backends.nearest_rows import NearestRows, add_norms, count_rows_at_once, rank_by_differences, turn_norms
from fastcomus.backends.threads import start_threads


def draw_whole_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Rows of small whole numbers, around 0, some in the same place: nothing is rounded."""
    half = rng.integers(-2, 3, (n, 3)).astype(np.float32)
    return np.concatenate([half, -half])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 30), st.booleans())
def test_the_nearest_of_what_was_offered_are_kept(seed: int, rows: int, count: int, by_column: bool) -> None:
    rng = np.random.default_rng(seed)
    others = draw_whole_rows(rng, int(rng.integers(1, 40)))
    own = others[rng.integers(0, len(others), rows)]
    squared = ((own[:, None] - others) ** 2).sum(axis=2)
    none = rng.random(squared.shape) < 0.1
    closeness = np.where(none, -np.inf, squared / np.float32(-2)).astype(np.float32)
    lists, flags = NearestRows(rows, count, len(others)), np.empty(closeness.size, bool)
    starts = np.arange(0, len(others), int(rng.integers(1, 9)))
    for start in rng.permutation(starts).tolist():
        part = np.ascontiguousarray(closeness[:, start : start + (starts[1] if len(starts) > 1 else len(others))])
        lists.offer(np.ascontiguousarray(part.T) if by_column else part, start, flags, by_column)
    ids, lengths = lists.collect()
    for row in range(rows):
        best = np.argsort(np.where(none[row], np.inf, squared[row]), kind="stable")[: min(count, (~none[row]).sum())]
        assert ids[row].tolist() == best.tolist() + [-1] * (count - len(best))
        assert lengths[row].tolist() == squared[row][best].tolist() + [np.inf] * (count - len(best))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([1, 3]), st.sampled_from([4, 16, 1024]))
def test_all_pairs_are_searched_whatever_the_blocks_and_threads(seed: int, n: int, threads: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    rows = draw_whole_rows(rng, n)
    count = int(rng.integers(1, 2 * n))
    squared = ((rows[:, None] - rows) ** 2).sum(axis=2)
    with pytest.MonkeyPatch.context() as patch, start_threads(threads) as workers:
        patch.setattr(nearest_rows, "_MOST_ROWS", at_once)
        centred = CentredRows(rows)
        found = search_all_pairs(centred, count, workers)
        near = search_by_products(centred.transform(rows[::2]), centred, count, workers)[1]
    np.fill_diagonal(squared, np.inf)
    assert (found == np.argsort(squared, axis=1, kind="stable")[:, :count]).all()
    np.fill_diagonal(squared, 0)
    assert (near == np.argsort(squared[::2], axis=1, kind="stable")[:, :count]).all()


def test_rows_in_order_of_distance_are_searched_too() -> None:
    """Every block holds nearer rows than the one before."""
    places = np.random.default_rng(0).random(5_000).astype(np.float32)
    rows = np.stack([np.sort(places), np.zeros(5_000, np.float32)], axis=1)
    with start_threads(2) as workers:
        found = search_all_pairs(CentredRows(rows), 7, workers)
    farthest = np.abs(rows[found, 0] - rows[:, :1]).max(axis=1)
    exact = np.sort(np.abs(rows[:, :1] - rows[:, 0]), axis=1)[:, 7]
    assert np.allclose(farthest, exact, atol=1e-4)


def test_what_is_held_fits_into_a_number() -> None:
    assert count_rows_at_once(40_000) == 1_024
    for others in (5_000_000, 2**31 - 1):
        rows = count_rows_at_once(others)
        lists, flags = NearestRows(rows, 1, others), np.empty(rows, bool)
        lists.offer(np.full((rows, 1), -0.5, np.float32), others - 1, flags)
        ids, squared = lists.collect()
        assert (ids == others - 1).all() and (squared == 1).all()


def test_products_are_half_the_distances() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 9)).astype(np.float32)
    others = add_norms(rows)
    assert np.allclose(turn_norms(others) @ others.T, ((rows[:, None] - rows) ** 2).sum(axis=2) / -2, atol=1e-5)


def test_close_rows_are_ranked_by_their_differences() -> None:
    rows = np.float32(3) + np.float32(1e-6) * np.random.default_rng(0).integers(-8, 9, (300, 20)).astype(np.float32)
    centred, near = CentredRows(rows), np.arange(1, 300)[None]
    ids, squared = rank_by_differences(centred, centred[:1], near)
    exact = ((rows[1:].astype(np.float64) - rows[0]) ** 2).sum(axis=1)
    assert (np.diff(exact[ids[0] - 1]) >= -1e-5 * exact.max()).all() and (np.diff(squared[0]) >= 0).all()


@pytest.mark.parametrize("spread", [0, 1e-5, 1e-4])
def test_close_rows_of_far_classes_are_found_whatever_the_threads(spread: float) -> None:
    """Rounding leaves squared distances on both sides of 0 here."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((8, 48))[rng.integers(0, 8, 3_000)] + spread * rng.standard_normal((3_000, 48))
    found = []
    for count in (1, 3, 3, 2):
        with start_threads(count) as threads:
            found.append(search_all_pairs(CentredRows(rows.astype(np.float32)), 9, threads))
    assert all((one == found[0]).all() for one in found)
    if not spread:
        classes = np.unique(rows, axis=0, return_inverse=True)[1]
        assert (classes[found[0]] == classes[:, None]).all()
