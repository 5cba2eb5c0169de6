"""The torch backend on the CPU, by the code that runs on a GPU, against scikit-learn, FAISS and the CPU backend."""

from __future__ import annotations

import os

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from seen_images import assert_same_objects, seen_images
from skimage import data
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from fastcomus.backends import choose, torch_neighbors
from fastcomus.backends.centred_rows import CentredRows
from fastcomus.backends.interface import LabelledMasks
from fastcomus.backends.torch_backend import TorchBackend
from fastcomus.backends.torch_neighbors import BlockPlan, ProductSearch, plan_blocks, put_own_first

# Another device: FASTCOMUS_TEST_DEVICE=cuda pytest tests/backends/test_torch_backend.py
DEVICE = torch.device(os.environ.get("FASTCOMUS_TEST_DEVICE", "cpu"))
TORCH, CPU = TorchBackend(DEVICE), choose.select("cpu")


def make_rows(count: int, dimension: int = 16, groups: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (groups, dimension))[np.arange(count) % groups]
    return (rng.normal(0, 1, (count, dimension)) + centres + 50).astype(np.float32)


# -- neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_resident", [True, False])
@pytest.mark.parametrize("devices", [1, 2])
def test_neighbours_of_all_pairs_are_those_of_faiss(
    is_resident: bool, devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From rows on the device and from blocks of the host, in blocks that do not divide the rows."""
    monkeypatch.setattr(torch_neighbors, "_BLOCK_ROWS", 300)
    monkeypatch.setattr(torch_neighbors, "plan_blocks", lambda *sizes: BlockPlan(is_resident, 170))
    rows = CentredRows(make_rows(1000))
    distances, expected = faiss.knn(rows[:], rows[:], 9)
    search = ProductSearch(rows, 9, [DEVICE] * devices)
    near, found = (one.numpy() for one in search.find(torch.arange(1000), torch.float32))
    assert (found == expected).mean() > 0.999 and np.allclose(near, distances, rtol=1e-3, atol=1e-5)
    placed = ProductSearch(torch.from_numpy(rows[:]).to(DEVICE), 9, [DEVICE] * devices)
    there = placed.find(torch.arange(1000, device=DEVICE), torch.float32)[1]
    assert there.device == DEVICE and (there.cpu().numpy() == found).all()
    near, found = (one.numpy() for one in search.find(torch.from_numpy(rows[:]), torch.bfloat16))
    assert (np.sort(found) == np.sort(expected)).mean() > 0.99 and np.allclose(near[:, 0], 0)
    assert (np.diff(near) >= 0).all()


def test_neighbours_of_the_backend_are_those_of_the_cpu_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(700)
    rows[10:14] = rows[9]  # equal rows: each is itself first
    expected = CPU.find_neighbors(rows, 7, 1.0, 0)
    for is_fast in (False, True):
        monkeypatch.setattr(torch_neighbors, "has_bfloat16", lambda device, answer=is_fast: answer)
        found = TORCH.find_neighbors(rows, 7, 0.9, 0)
        assert found.indices.dtype == np.int32 and (found.indices[:, 0] == np.arange(700)).all()
        assert found.recall >= 0.999
        distinct = np.setdiff1d(np.arange(700), np.arange(9, 14))
        assert (np.sort(found.indices[distinct]) == np.sort(expected.indices[distinct])).mean() > 0.99
        assert (np.sort(found.indices[9:14, 1:5]) < 14).all()
    for one, other in zip(
        TORCH.find_nearest(rows[:30] + 0.1, rows, 4), CPU.find_nearest(rows[:30] + 0.1, rows, 4), strict=True
    ):
        assert one.dtype == other.dtype and np.allclose(one, other, rtol=1e-4)
    assert TORCH.find_neighbors(rows[:1], 1, 1.0, 0).indices.tolist() == [[0]]
    assert TORCH.find_neighbors(rows[:3], 3, 1.0, 0).indices.shape == (3, 3)


def test_rows_that_bfloat16_cannot_tell_apart_are_compared_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_neighbors, "has_bfloat16", lambda device: True)
    rows = np.repeat(make_rows(4, 8, 4), 200, axis=0)
    rows += np.random.default_rng(0).normal(0, 0.02, rows.shape).astype(np.float32)
    found = TORCH.find_neighbors(rows, 6, 0.9, 0)
    assert found.recall == 1
    assert (np.sort(found.indices) == np.sort(CPU.find_neighbors(rows, 6, 1.0, 0).indices)).mean() > 0.98


def test_a_million_rows_fit_into_24_gb() -> None:
    plan = plan_blocks(1_000_000, 384, 60, 24 * 10**9)
    assert plan.is_resident and plan.queries >= 1024
    assert not plan_blocks(20_000_000, 384, 60, 24 * 10**9).is_resident
    assert plan_blocks(1_000_000, 384, 60, 10**6).queries == 1


@pytest.mark.parametrize("free", [2**31, 10])
def test_joined_neighbours_are_those_of_scipy(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows have a neighbour twice or lack themselves; without memory the host joins them."""
    monkeypatch.setattr("fastcomus.backends.device_graph.measure_free_bytes", lambda device: free)
    for n, count in ((1, 1), (3, 3), (200, 5)):
        indices = np.random.default_rng(n).integers(0, n, (n, count)).astype(np.int32)
        directed = np.zeros((n, n), np.float32)
        directed[np.arange(n)[:, None], indices] = 1
        for backend in (TORCH, CPU):
            found = backend.join_neighbors(indices.copy())
            assert (found.toarray() == (directed + directed.T) / 2).all() and found.nnz == (found.toarray() > 0).sum()
            assert found.data.dtype == np.float32 and found.indices.dtype == found.indptr.dtype == np.int32
            assert found.has_sorted_indices


def test_components_are_those_of_scipy() -> None:
    """Of sparse random graphs, of a long path, which takes the most turns, and of no links at all."""
    rng = np.random.default_rng(0)
    graphs = [sparse.random_array((300, 300), density=density, rng=rng) for density in (0, 0.002, 0.005, 0.05)]
    order = rng.permutation(2000)
    graphs.append(sparse.coo_array((np.ones(1999), (order[:-1], order[1:])), shape=(2000, 2000)))
    for directed in graphs:
        graph = (directed + directed.T).tocsr()
        ours, theirs = TORCH.find_components(graph), CPU.find_components(graph)
        assert adjusted_rand_score(ours, theirs) == 1 and ours.max() == theirs.max() and ours.min() == 0


# -- eigenvectors and clusters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 12])
def test_kmeans_from_a_start_is_that_of_scikit_learn(k: int) -> None:
    rows = make_rows(900)
    start = rows[:k].copy()
    labels, centres = TORCH.run_kmeans(rows, k, 3, 0, start)
    expected = KMeans(k, init=start, n_init=1).fit(rows)
    assert (labels == expected.labels_).all() and labels.dtype == np.int32
    assert np.allclose(centres, expected.cluster_centers_, atol=1e-4) and centres.dtype == np.float32


def test_kmeans_finds_what_was_planted_and_as_much_inertia_as_scikit_learn() -> None:
    rows, truth = make_rows(1200), np.arange(1200) % 12
    labels, centres = TORCH.run_kmeans(rows, 12, 5, 0)
    assert adjusted_rand_score(labels, truth) > 0.99
    again, _ = TORCH.run_kmeans(rows, 12, 5, 0)
    assert (again == labels).all()
    noise = np.random.default_rng(1).normal(size=(800, 6)).astype(np.float32)
    labels, centres = TORCH.run_kmeans(noise, 20, 10, 0)
    inertia = ((noise - centres[labels]) ** 2).sum()
    assert inertia < 1.02 * KMeans(20, n_init=10, random_state=0).fit(noise).inertia_


def test_kmeans_leaves_no_cluster_empty_and_takes_rows_that_are_equal() -> None:
    rows = np.repeat(np.eye(5, 4, dtype=np.float32), 20, axis=0)
    labels, centres = TORCH.run_kmeans(rows, 5, 2, 0)
    assert adjusted_rand_score(labels, np.arange(100) // 20) == 1
    far = np.vstack([rows, np.full((1, 4), 9, np.float32)])  # a start far from all rows
    labels, centres = TORCH.run_kmeans(far, 3, 1, 0, np.array([[0] * 4, [100] * 4, [-100] * 4], np.float32))
    assert np.bincount(labels, minlength=3).min() > 0 and np.isfinite(centres).all()


# -- pixels -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seen_images(), st.sampled_from(["otsu", "0.5"]), st.integers(1, 200))
def test_objects_are_those_of_the_cpu_backend(seen: tuple, theta: str, min_area: int) -> None:
    images, maps = seen
    for given_maps in (maps, [one > 0.4 for one in maps]):
        expected = CPU.find_objects(images, given_maps, theta, min_area, 9)
        assert_same_objects(TORCH.find_objects(images, given_maps, theta, min_area, 9), expected)
    as_tensors = [torch.from_numpy(one).to(DEVICE) for one in maps]
    planar = [torch.from_numpy(one).permute(2, 0, 1).contiguous().permute(1, 2, 0).to(DEVICE) for one in images]
    expected = CPU.find_objects(images, maps, theta, min_area, 9)
    assert_same_objects(TORCH.find_objects(planar, as_tensors, theta, min_area, 9), expected)


@pytest.mark.parametrize("most", [2**25, 1000])
def test_objects_of_coarse_maps_are_those_of_the_cpu_backend(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network gives them: smooth maps of one size for photographs of several, together and one by one."""
    monkeypatch.setattr("fastcomus.backends.torch_objects._MOST_PIXELS", most)
    pictures = [data.astronaut(), data.coffee(), data.chelsea()[:201]]
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij"))
    maps = [(1 - (grid - shift).norm(dim=0)).clamp(0, 1)[None] for shift in (0.1, 0.4, -0.3)]
    maps[1] = torch.cat([maps[1], maps[0]])
    for given_maps, theta in ((maps, "otsu"), ([one > 0.6 for one in maps], "0.5")):
        expected = CPU.find_objects(pictures, given_maps, theta, 50, 64)
        assert [len(one.boxes) for one in expected] == [1, 2, 1]
        assert_same_objects(TORCH.find_objects(pictures, given_maps, theta, 50, 64), expected)
    nothing = [torch.zeros((0, 32, 32), dtype=torch.bool)] * 3
    assert [len(one.boxes) for one in TORCH.find_objects(pictures, nothing, "otsu", 50, 64)] == [0, 0, 0]


def test_class_maps_and_confusion_are_those_of_the_cpu_backend() -> None:
    rng = np.random.default_rng(0)
    images = [
        LabelledMasks(list(rng.random((count, *shape)) < 0.3), labels, shape)
        for count, labels, shape in [(5, [7, 0, 65_534, 300, 2], (33, 21)), (0, [], (4, 5)), (2, [1, 0], (8, 90))]
    ]
    for one, other in zip(TORCH.assemble_masks(images), CPU.assemble_masks(images), strict=True):
        assert one.dtype == np.uint16 and (one == other).all()
    predicted, truth = rng.integers(0, 300, (40, 50), np.uint16), rng.integers(0, 256, (40, 50), np.uint8)
    assert (TORCH.count_confusion(predicted, truth, 300) == CPU.count_confusion(predicted, truth, 300)).all()


def test_own_row_comes_first_and_once_unless_it_filled_a_gap() -> None:
    found = np.random.default_rng(0).integers(-1, 6, (200, 6, 4))
    for one in found:
        first = put_own_first(torch.from_numpy(one)).numpy()
        for row in range(6):
            kept = [other for other in one[row] if other not in (row, -1)]
            assert first[row, 0] == row and [other for other in first[row, 1:] if other != row] == kept[:3]
