"""Means, distances and pivots against NumPy and SciPy; FASTCOMUS_TEST_DEVICE=cuda computes them on a GPU."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import cosine

from fastcomus.backends.placed import put_rows
from fastcomus.clusters import row_geometry
from fastcomus.clusters.row_geometry import assign_by_pivots, compute_cosine_distances, compute_means, find_pivots

DEVICE = torch.device(os.environ.get("FASTCOMUS_TEST_DEVICE", "cpu"))


def make_rows(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 1, (count, dimension)) + 0.3).astype(np.float32)


@pytest.mark.parametrize("at_once", [65_536, 7])
def test_means_and_distances_are_those_of_numpy(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_geometry, "_ROWS_AT_ONCE", at_once)
    rows, labels = make_rows(90, 5), np.random.default_rng(1).integers(0, 4, 90)
    labels[labels == 2] = 1  # cluster 2 has no rows
    rows[7] = 0
    sizes = np.bincount(labels, minlength=4)
    centres = compute_means(rows, labels, sizes, DEVICE)
    expected = [rows[labels == one].mean(0, dtype=np.float64) if sizes[one] else np.zeros(5) for one in range(4)]
    assert centres.dtype == np.float32 and np.allclose(centres, expected, atol=1e-6)
    distances = compute_cosine_distances(rows, centres, labels, DEVICE)
    expected = [cosine(row, centres[label]) if row.any() else 1 for row, label in zip(rows, labels, strict=True)]
    assert distances.dtype == np.float32 and np.allclose(distances, expected, atol=1e-6)
    assert (compute_cosine_distances(rows[:3], np.zeros((4, 5), np.float32), labels[:3], DEVICE) == 1).all()


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


def test_pivots_are_those_of_a_pivoted_qr() -> None:
    for seed in range(5):
        rows = make_rows(300, 9, seed)
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        expected = linalg.qr((rows * lengths**-0.98).T, mode="r", pivoting=True)[1]
        for k in (1, 4, 9):
            assert find_pivots(rows, k, 0, DEVICE).tolist() == expected[:k].tolist()


def test_pivots_are_no_more_than_the_rows_have_directions() -> None:
    rows = np.repeat(make_rows(3, 8), 20, axis=0)
    assert len(find_pivots(rows, 5, 0, DEVICE)) == 3
    assert len(find_pivots(np.zeros((4, 3), np.float32), 2, 0, DEVICE)) <= 1
    assert len(find_pivots(make_rows(2, 8), 2, 0, DEVICE)) == 2


def test_rows_go_to_the_pivot_they_are_parallel_to() -> None:
    axes = np.linalg.qr(make_rows(4, 4).astype(np.float64))[0].astype(np.float32)
    labels = np.random.default_rng(0).integers(0, 4, 50)
    rows = axes[labels] * np.float32(3) + 0.01 * make_rows(50, 4, 1)
    assert (assign_by_pivots(rows, axes, DEVICE) == labels).all()
