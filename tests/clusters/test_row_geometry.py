"""Means, distances and pivots against NumPy and SciPy, by NumPy and by torch; FASTCOMUS_TEST_DEVICE=cuda: on a GPU."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import cosine
from sklearn.metrics import pairwise_distances_argmin

from fastcomus.backends.device_graph import put_rows
from fastcomus.backends.placed import fetch
from fastcomus.clusters import row_geometry
from fastcomus.clusters.row_geometry import (
    assign_by_pivots,
    compute_cosine_distances,
    compute_means,
    count_labels,
    find_nearest_centres,
    find_pivots,
    normalise_in_kind,
    number_in_order,
    select_core,
)

DEVICE = torch.device(os.environ.get("FASTCOMUS_TEST_DEVICE", "cpu"))
Put = Callable[[np.ndarray], Any]


@pytest.fixture(params=["numpy", "torch"])
def put(request: pytest.FixtureRequest) -> Put:
    return (lambda rows: rows) if request.param == "numpy" else (lambda rows: put_rows(rows, DEVICE))


def make_rows(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 1, (count, dimension)) + 0.3).astype(np.float32)


@pytest.mark.parametrize("at_once", [65_536, 7])
def test_means_and_distances_are_those_of_numpy(put: Put, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_geometry, "_ROWS_AT_ONCE", at_once)
    rows, labels = make_rows(90, 5), np.random.default_rng(1).integers(0, 4, 90).astype(np.int32)
    labels[labels == 2] = 1  # cluster 2 has no rows
    rows[7] = 0
    sizes = count_labels(put(labels), 4)
    assert (sizes == np.bincount(labels, minlength=4)).all()
    centres = fetch(compute_means(put(rows), put(labels), sizes))
    expected = [rows[labels == one].mean(0, dtype=np.float64) if sizes[one] else np.zeros(5) for one in range(4)]
    assert centres.dtype == np.float32 and np.allclose(centres, expected, atol=1e-6)
    distances = fetch(compute_cosine_distances(put(rows), put(centres), put(labels)))
    expected = [cosine(row, centres[label]) if row.any() else 1 for row, label in zip(rows, labels, strict=True)]
    assert distances.dtype == np.float32 and np.allclose(distances, expected, atol=1e-6)
    nowhere = put(np.zeros((4, 5), np.float32))
    assert (fetch(compute_cosine_distances(put(rows[:3]), nowhere, put(labels[:3]))) == 1).all()


def test_clusters_are_numbered_in_the_order_given(put: Put) -> None:
    found = number_in_order(put(np.array([2, 0, 1, 2])), np.array([2, 0, 1]))
    assert fetch(found).tolist() == [0, 1, 2, 0] and fetch(found).dtype == np.int32


def test_the_farthest_of_each_cluster_are_not_core(put: Put) -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 0, 1], np.int32)
    distances = np.array([0.5, 0.2, 0.5, 0.1, 0.3, 0.3, 0.5, 0.3], np.float32)
    core = fetch(select_core(put(labels), put(distances), np.bincount(labels), 0.4))
    # Two of five, one of three: of equal distances the first ones are kept.
    assert core.tolist() == [True, True, False, True, True, True, False, False]
    assert fetch(select_core(put(labels), put(distances), np.bincount(labels), 0)).all()


def test_rows_of_zeros_are_left_when_all_are_scaled(put: Put) -> None:
    rows = make_rows(6, 4)
    rows[2] = 0
    found = fetch(normalise_in_kind(put(rows)))
    assert found.dtype == np.float32 and not found[2].any()
    others = np.arange(6) != 2
    assert np.allclose(found[others], rows[others] / np.linalg.norm(rows[others], axis=1, keepdims=True), atol=1e-6)


def test_rows_that_are_read_only_are_put_without_a_copy_or_a_warning() -> None:
    rows = make_rows(3, 2)
    rows.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.set_warn_always(True)
        try:
            placed = put_rows(rows, torch.device("cpu"))
        finally:
            torch.set_warn_always(False)
    assert placed.data_ptr() == rows.ctypes.data


def test_pivots_are_those_of_a_pivoted_qr(put: Put) -> None:
    for seed in range(5):
        rows = make_rows(300, 9, seed)
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        expected = linalg.qr((rows * lengths**-0.98).T, mode="r", pivoting=True)[1]
        for k in (1, 4, 9):
            assert find_pivots(put(rows), k, 0).tolist() == expected[:k].tolist()


def test_pivots_are_no_more_than_the_rows_have_directions(put: Put) -> None:
    rows = np.repeat(make_rows(3, 8), 20, axis=0)
    assert len(find_pivots(put(rows), 5, 0)) == 3
    assert len(find_pivots(put(np.zeros((4, 3), np.float32)), 2, 0)) <= 1
    assert len(find_pivots(put(make_rows(2, 8)), 2, 0)) == 2


@pytest.mark.parametrize("at_once", [4_096, 7])
def test_the_nearest_centre_is_scikit_learns(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_geometry, "_PAIRED_ROWS", at_once)
    rows, centres = make_rows(60, 5) + 100, make_rows(9, 5, 1) + 100
    assert (find_nearest_centres(rows, centres) == pairwise_distances_argmin(rows.astype(float), centres)).all()
    assert (find_nearest_centres(rows, np.repeat(centres[:1], 3, axis=0)) == 0).all()


def test_rows_go_to_the_pivot_they_are_parallel_to(put: Put) -> None:
    axes = np.linalg.qr(make_rows(4, 4).astype(np.float64))[0].astype(np.float32)
    labels = np.random.default_rng(0).integers(0, 4, 50)
    rows = axes[labels] * np.float32(3) + 0.01 * make_rows(50, 4, 1)
    assert (fetch(assign_by_pivots(put(rows), put(axes))) == labels).all()
