"""Eigenmaps against scikit-learn's, up to their symmetry; graphs in parts, few rows, equal runs."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from scipy.linalg import subspace_angles
from scipy.sparse import csr_array
from sklearn.manifold import spectral_embedding

from fastcomus.backends import graph_eigenvectors, sparse_operator
from fastcomus.backends.choose import select
from fastcomus.clusters import eigenmaps, labels, row_geometry
from fastcomus.clusters.eigenmaps import compute_eigenmaps
from fastcomus.clusters.graph import build_knn_graph
from fastcomus.config import ClusterConfig
from fastcomus.store import embeddings

CPU = select("cpu")


def dense_eigenvalues(affinity: csr_array) -> np.ndarray:
    """All eigenvalues of the normalised Laplacian without loops, ascending."""
    weights = affinity.toarray().astype(np.float64)
    np.fill_diagonal(weights, 0)
    scale = 1 / np.sqrt(weights.sum(axis=1))
    return np.linalg.eigvalsh(np.eye(len(weights)) - scale[:, None] * weights * scale)


def assert_equals_scikit_learns(affinity: csr_array, n_components: int) -> None:
    maps = compute_eigenmaps(affinity, n_components, 0, CPU)
    theirs = spectral_embedding(
        affinity.toarray().astype(np.float64), n_components=n_components, drop_first=False, random_state=0
    )
    assert maps.rows.shape == (affinity.shape[0], n_components) and maps.rows.dtype == np.float32
    assert subspace_angles(maps.rows.astype(np.float64), theirs).max() < 1e-3
    # Rescaled by D^-1/2, the first eigenvector is constant.
    assert np.ptp(maps.rows[:, 0]) < 1e-5 * np.abs(maps.rows[:, 0]).max()
    assert np.allclose(np.linalg.norm(maps.rows, axis=0), np.linalg.norm(theirs, axis=0), rtol=1e-3)
    assert np.abs(maps.eigenvalues - dense_eigenvalues(affinity)[:n_components]).max() < 1e-6
    assert abs(maps.eigenvalues[0]) < 1e-9 and (np.diff(maps.eigenvalues) >= 0).all()
    assert maps.eigenvalues.min() > -1e-9 and maps.eigenvalues.max() < 2 + 1e-9 and maps.residual < 1e-6


def test_eigenmaps_of_planted_embeddings_span_scikit_learns_subspace() -> None:
    rows, _ = planted.dino_like(1500, 20, 0.605)
    assert_equals_scikit_learns(build_knn_graph(rows, 30, "euclidean", 1.0, 0, CPU).affinity, 20)


@pytest.mark.parametrize("n_components", [2, 5, 100])  # the last by the dense solver
def test_eigenmaps_span_scikit_learns_subspace(n_components: int) -> None:
    rows, _ = planted.gaussian(spread=2.0)
    assert_equals_scikit_learns(build_knn_graph(rows, 20, "euclidean", 1.0, 0, CPU).affinity, n_components)


@pytest.mark.parametrize("torch_rows", [1_000, 100_000])  # torch multiplies, or SciPy
@pytest.mark.parametrize("n_components", [3, 20, 60])
def test_the_block_solver_agrees_with_arpack(
    n_components: int, torch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = planted.dino_like(3000, 20, 0.605)
    affinity = build_knn_graph(rows, 30, "euclidean", 1.0, 0, CPU).affinity
    exact = compute_eigenmaps(affinity, n_components, 0, CPU)
    monkeypatch.setattr(graph_eigenvectors, "SMALL_GRAPH_ROWS", 100)
    monkeypatch.setattr(graph_eigenvectors, "_TORCH_ROWS", torch_rows)
    maps = compute_eigenmaps(affinity, n_components, 0, CPU)
    assert np.abs(maps.eigenvalues - exact.eigenvalues).max() < 1e-5
    assert subspace_angles(maps.rows.astype(np.float64), exact.rows.astype(np.float64)).max() < 1e-2
    assert maps.residual < 2e-4 and maps.orthonormality < 1e-5
    again = compute_eigenmaps(affinity, n_components, 0, CPU)
    assert again.rows.tobytes() == maps.rows.tobytes()


@pytest.mark.parametrize("rows_of_equal", [1, 300])  # the latter leave the solver's block dependent
def test_eigenmaps_do_not_depend_on_the_number_of_threads(rows_of_equal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(9_000 // rows_of_equal, 12)), rows_of_equal, axis=0)
    affinity = build_knn_graph(rows.astype(np.float32), 15, "euclidean", 1.0, 0, CPU).affinity
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(sparse_operator, "count_cores", lambda cores=cores: cores)
        found.append(compute_eigenmaps(affinity, 20, 0, CPU).rows.tobytes())
    assert found[0] == found[1] == found[2]


def test_a_solver_that_stops_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(1500, 64)).astype(np.float32)
    affinity = build_knn_graph(rows, 20, "euclidean", 1.0, 0, CPU).affinity
    monkeypatch.setattr(graph_eigenvectors, "SMALL_GRAPH_ROWS", 100)
    solve = graph_eigenvectors.find_largest_eigenpairs
    monkeypatch.setattr(graph_eigenvectors, "find_largest_eigenpairs", lambda *given: solve(*given, max_restarts=0))
    with pytest.raises(ArithmeticError, match="stopped at residual"):
        compute_eigenmaps(affinity, 40, 0, CPU)


@pytest.mark.parametrize("parts", [2, 5, 12])
def test_every_part_of_the_graph_is_a_vector(parts: int) -> None:
    rows, classes = planted.gaussian(50 * parts, parts, spread=0.01)
    graph = build_knn_graph(rows, 10, "euclidean", 1.0, 0, CPU)
    assert len(graph.component_sizes) == parts
    maps = compute_eigenmaps(graph.affinity, parts + 1, 0, CPU)
    assert np.abs(maps.eigenvalues[:parts]).max() < 1e-9 and maps.eigenvalues[parts] > 1e-3
    indicators = np.eye(parts)[classes]  # D^-1/2 times the eigenvectors of 0: constant on every part
    assert subspace_angles(maps.rows[:, :parts].astype(np.float64), indicators).max() < 1e-3


def test_fewer_vectors_than_parts_go_to_the_largest_parts() -> None:
    rows, _ = planted.gaussian(60, 3, spread=0.01)
    rows = np.concatenate([rows, rows[:12:3] + 100])
    graph = build_knn_graph(rows, 4, "euclidean", 1.0, 0, CPU)
    assert graph.component_sizes[-1] == 4
    maps = compute_eigenmaps(graph.affinity, len(graph.component_sizes) - 1, 0, CPU)
    assert (maps.rows[-4:] == 0).all() and (np.abs(maps.rows[:60]).max(axis=1) > 0).all()


@pytest.mark.parametrize("n", [2, 3, 10])
def test_as_many_vectors_as_rows(n: int) -> None:
    rows, _ = planted.gaussian(n)
    graph = build_knn_graph(rows, 30, "euclidean", 1.0, 0, CPU)
    for n_components in range(1, n + 1):
        maps = compute_eigenmaps(graph.affinity, n_components, 0, CPU)
        # A complete graph without loops has eigenvalues 0 and n / (n - 1).
        assert np.allclose(maps.eigenvalues, [0, *[n / (n - 1)] * (n_components - 1)], atol=1e-9)
        assert np.linalg.matrix_rank(maps.rows) == n_components


@pytest.mark.parametrize("n_components", [5, 100])
def test_equal_runs_give_equal_bytes(n_components: int) -> None:
    rows, _ = planted.gaussian(spread=2.0)
    affinity = build_knn_graph(rows, 20, "euclidean", 1.0, 0, CPU).affinity
    first, second, other = (compute_eigenmaps(affinity, n_components, seed, CPU) for seed in (3, 3, 4))
    assert first.rows.tobytes() == second.rows.tobytes()
    assert first.eigenvalues.tobytes() == second.eigenvalues.tobytes()
    # Signs are fixed, so another start of the solver changes nothing but the last digits.
    assert np.abs(first.rows - other.rows).max() < 1e-4 * np.abs(first.rows).max()


def test_the_order_to_work_in_changes_nothing() -> None:
    affinity = build_knn_graph(planted.gaussian()[0], 10, "euclidean", 1, 0, CPU).affinity
    order = np.random.default_rng(0).permutation(300)
    usual, ordered = compute_eigenmaps(affinity, 6, 0, CPU), compute_eigenmaps(affinity, 6, 0, CPU, order)
    assert np.abs(usual.eigenvalues - ordered.eigenvalues).max() < 1e-9
    assert subspace_angles(usual.rows.astype(np.float64), ordered.rows.astype(np.float64)).max() < 1e-4


def test_graph_is_left_as_it_was_and_loops_do_not_count() -> None:
    rows, _ = planted.gaussian(spread=2.0)
    affinity = build_knn_graph(rows, 20, "euclidean", 1.0, 0, CPU).affinity
    before = affinity.toarray()
    maps = compute_eigenmaps(affinity, 4, 0, CPU)
    assert (affinity.toarray() == before).all()
    heavier = csr_array(before + 5 * np.eye(len(before), dtype=np.float32))
    assert np.allclose(compute_eigenmaps(heavier, 4, 0, CPU).rows, maps.rows, atol=1e-6)


def test_parts_of_the_rows_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = planted.gaussian(400, 5)
    graph = build_knn_graph(rows, 12, "euclidean", 1.0, 0, CPU)

    def found() -> list[np.ndarray]:
        maps = compute_eigenmaps(graph.affinity, 9, 0, CPU, graph.order)
        clusters = labels.cluster_rows(maps.rows, 5, "qr", ClusterConfig(), 0, CPU)
        return [maps.rows, clusters.labels, clusters.distances, clusters.is_core, clusters.centres]

    at_once = found()
    for module in (eigenmaps, row_geometry, graph_eigenvectors, embeddings):
        monkeypatch.setattr(module, "_ROWS_AT_ONCE", 37)
    monkeypatch.setattr(eigenmaps, "_COLUMNS_AT_ONCE", 2)
    assert all((one == other).all() for one, other in zip(at_once, found(), strict=True))
