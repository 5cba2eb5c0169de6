"""A clustering on a device moves its rows there once, and labels back once; see `other_device`."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from other_device import OTHER, simulate_device
from sklearn.metrics import adjusted_rand_score

from fastcomus import Run, cluster
from fastcomus.backends import torch_eigenvectors
from fastcomus.backends.torch_backend import TorchBackend
from fastcomus.clusters import near_rows
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import ClusterConfig

N, K = 2_050, 6


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return planted.gaussian(N, K, spread=2.5)[0]


@pytest.mark.parametrize("method", ["spectral", "kmeans"])
def test_rows_go_up_once_and_labels_come_down_once(
    rows: np.ndarray, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_eigenvectors, "SMALL_GRAPH_ROWS", 1_000)
    config = ClusterConfig(k=K, method=method, n_neighbors=15)
    expected = cluster(rows, K, device="cpu", method=method, n_neighbors=15)
    with simulate_device() as moved:
        found = cluster_embeddings(rows, config, 0, TorchBackend(OTHER)).clusters
    assert adjusted_rand_score(found.labels, expected.labels) > 0.98
    # Beside them the eigensolver's random first vectors, and what is no longer than its basis or k.
    assert select_long(moved.up) == [(N, 12), *([(16, N)] if method == "spectral" else [])]
    assert select_long(moved.down) == [(N,)] * 3  # labels, distances, is_core


def select_long(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those with a row for each object, or for more."""
    return [shape for shape in shapes if any(size >= N for size in shape)]


def test_a_run_fetches_the_graph_and_its_eigenmaps_once(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the run folder, from where another number of clusters takes them without any search."""
    monkeypatch.setattr(torch_eigenvectors, "SMALL_GRAPH_ROWS", 1_000)
    run = Run(tmp_path / "run", preset="offline", device="cpu")
    run.workplace.backend = TorchBackend(OTHER)
    with simulate_device() as moved:
        found = run.cluster(rows, k=K, n_neighbors=15)
    expected = cluster(rows, K, device="cpu", n_neighbors=15)
    assert adjusted_rand_score(found.labels, expected.labels) > 0.98
    links = len(np.load(run.folder.path / "graph/indices.npy"))
    graph = [(links,), (links,), (N + 1,), (N, 12)]  # values, columns, where rows begin, the nearest of each
    assert select_long(moved.down) == [*graph, (N, 16), *[(N,)] * 3]
    with simulate_device() as moved:
        run.cluster(rows, k=K + 1, n_neighbors=15)
    assert (N, 12) not in moved.up


def test_what_does_not_fit_on_the_device_stays_on_the_host(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU joins and solves the graph then."""
    for module in ("torch_backend", "device_graph"):
        monkeypatch.setattr(f"fastcomus.backends.{module}.measure_free_bytes", lambda device: 250_000)
    config = ClusterConfig(k=K, n_neighbors=15)
    with simulate_device():
        found = cluster_embeddings(rows, config, 0, TorchBackend(OTHER)).clusters
    expected = cluster(rows, K, device="cpu", n_neighbors=15)
    assert adjusted_rand_score(found.labels, expected.labels) > 0.98


def test_rows_that_others_are_compared_with_go_up_once(rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, by all pairs, without FAISS, however many these are."""
    monkeypatch.setattr(near_rows, "_ALL_PAIRS", 1)
    known, new = rows[:1500], rows[1500:]
    expected, lengths = TorchBackend(torch.device("cpu")).find_nearest(new, known, 5)
    monkeypatch.setattr(near_rows, "import_faiss", None)
    backend = TorchBackend(OTHER)
    with simulate_device() as moved:
        near = near_rows.divide_rows(known, new[:50], len(new), 5, 0.95, 0, backend)
        parts = [near.search(new[start : start + 200], 5, backend, 1) for start in range(0, len(new), 200)]
    assert moved.up.count((1500, 12)) == 1
    assert (np.concatenate([one for one, _ in parts]) == expected).all()
    assert np.allclose(np.concatenate([one for _, one in parts]), lengths, rtol=1e-4)
    assert "placed" not in pickle.loads(pickle.dumps(near)).__dict__
