"""A polynomial of a matrix has its eigenvectors, and what it says of eigenvalues and residuals holds for the matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.sparse import csr_array, diags_array

from fastcomus.backends import block_krylov
from fastcomus.backends.block_krylov import draw_first_block, find_largest_eigenpairs
from fastcomus.backends.cpu import CpuBackend
from fastcomus.backends.filtered_operator import FilteredOperator
from fastcomus.backends.sparse_operator import open_operator
from fastcomus.clusters.graph import build_knn_graph, drop_loops

INTERVALS = st.tuples(st.floats(-1, -0.05), st.floats(0, 0.98))


class Diagonal:
    """A matrix whose eigenvalues are given, in float64."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __matmul__(self, block: np.ndarray) -> np.ndarray:
        return self.values[:, None] * block

    def map_slices(self, function, length):  # type: ignore[no-untyped-def]
        return [function(slice(0, length // 2)), function(slice(length // 2, length))]


@settings(max_examples=80, deadline=None)
@given(INTERVALS)
def test_the_polynomial_is_small_in_its_interval_and_grows_above_it(interval: tuple[float, float]) -> None:
    values = np.linspace(-1, 1, 2_001)
    operator = FilteredOperator(Diagonal(values), *interval)
    found = (operator @ np.ones((len(values), 1)))[:, 0]
    assert operator.degree % 2 == 1 and 1 <= operator.degree <= 9 and 1e-3 <= operator.floor < 1
    assert found[-1] == pytest.approx(1)
    above = found > operator.floor * (1 + 1e-9)
    start = int(np.argmax(above))
    assert above[start:].all() and (np.diff(found[start:]) > 0).all() and values[start] < interval[1] + 2e-3
    within = (values >= interval[0]) & ~above
    assert np.abs(found[within]).max() <= operator.floor * (1 + 1e-9)
    assert (found[values < interval[0]] <= 0).all()
    assert np.allclose(operator.find_eigenvalues(found[above]), values[above], atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(INTERVALS, st.integers(0, 999), st.sampled_from([1e-6, 1e-3, 0.1]))
def test_residuals_are_not_underestimated(interval: tuple[float, float], seed: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(-1, 1, 60))
    operator = FilteredOperator(Diagonal(values), *interval)
    vectors = np.eye(60)[:, -8:] + error * rng.standard_normal((60, 8))
    vectors /= np.linalg.norm(vectors, axis=0)
    products = operator @ vectors.copy()
    risen = (vectors * products).sum(axis=0)
    residuals = np.linalg.norm(products - risen * vectors, axis=0)
    bounds = operator.limit_residuals(residuals, risen)
    known = risen > operator.floor
    assert np.isinf(bounds[~known]).all()
    of_matrix = (values[:, None] - operator.find_eigenvalues(risen[known])) * vectors[:, known]
    assert (np.linalg.norm(of_matrix, axis=0) <= bounds[known] * (1 + 1e-6) + 1e-12).all()


def build_matrix(rows: np.ndarray, neighbours: int) -> csr_array:
    affinity = drop_loops(
        build_knn_graph(rows.astype(np.float32), neighbours, "euclidean", 1, 0, CpuBackend()).affinity
    )
    scale = diags_array(1 / np.sqrt(affinity.sum(axis=1)))
    return csr_array((scale @ affinity @ scale).astype(np.float32))


def draw_rows(kind: str) -> np.ndarray:
    rng, n = np.random.default_rng(1), 1_200
    if kind == "ring":  # many eigenvalues near 1
        turns = rng.uniform(0, 2 * np.pi, n)
        return np.stack([np.cos(turns), np.sin(turns)], axis=1) + 0.01 * rng.standard_normal((n, 2))
    centres = {"noise": 0, "clusters": 1, "far clusters": 2.5}[kind] * rng.standard_normal((30, 24))
    return centres[rng.integers(0, 30, n)] + rng.standard_normal((n, 24))


@pytest.mark.parametrize("kind", ["ring", "noise", "clusters", "far clusters"])
@pytest.mark.parametrize("neighbours", [6, 25])
@pytest.mark.parametrize("count", [3, 30, 90])
def test_eigenpairs_are_those_of_a_dense_solver(kind: str, neighbours: int, count: int) -> None:
    matrix = build_matrix(draw_rows(kind), neighbours)
    values, vectors = np.linalg.eigh(matrix.toarray().astype(np.float64))
    with open_operator(matrix) as operator:
        found = find_largest_eigenpairs(operator, draw_first_block(len(values), 0), count)
    assert np.abs(found.values - values[::-1][:count]).max() < 2e-5
    rest = matrix @ found.vectors - found.vectors * found.values.astype(np.float32)
    assert found.residual < 1e-4 and np.linalg.norm(rest, axis=0).max() <= found.residual + 2e-5
    assert np.abs(found.vectors.T @ found.vectors - np.eye(count)).max() < 1e-5
    if values[-count] - values[-count - 1] > 0.02:  # else the last ones are one subspace with what follows
        assert subspace_angles(found.vectors.astype(np.float64), vectors[:, -count:]).max() < 1e-2


def test_an_interval_that_holds_what_is_wanted_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = build_matrix(draw_rows("noise"), 25)
    solved = []

    def choose(operator, first, *others):  # type: ignore[no-untyped-def]
        return FilteredOperator(operator, -1, 0.9), first

    def solve(operator, *others, plain=block_krylov._solve):  # type: ignore[no-untyped-def]
        solved.append(type(operator).__name__)
        return plain(operator, *others)

    monkeypatch.setattr(block_krylov, "_choose_filter", choose)
    monkeypatch.setattr(block_krylov, "_solve", solve)
    with open_operator(matrix) as operator:
        found = find_largest_eigenpairs(operator, draw_first_block(matrix.shape[0], 0), 30)
    assert solved == ["FilteredOperator", "PlainOperator"]
    assert np.abs(found.values - np.linalg.eigvalsh(matrix.toarray())[::-1][:30]).max() < 2e-5


def join_edges(nodes: int, *edges: tuple[int, int]) -> csr_array:
    ends = np.array(edges)
    graph = csr_array((np.ones(len(ends), np.float32), (ends[:, 0], ends[:, 1])), shape=(nodes, nodes))
    return csr_array(graph + graph.T)


def build_odd_graph(kind: str) -> csr_array:
    if kind == "hypercube":  # eigenvalues of multiplicity 1, 10, 45, 120, ...: more than a block has vectors
        return join_edges(1024, *((i, i ^ bit) for i in range(1024) for bit in 2 ** np.arange(10) if i < i ^ bit))
    if kind == "stars in a chain":  # all but two eigenvalues of each are 0
        leaves = [(hub * 100, hub * 100 + leaf) for hub in range(12) for leaf in range(1, 100)]
        return join_edges(1_200, *leaves, *((hub * 100, hub * 100 + 100) for hub in range(11)))
    if kind == "two equal halves":  # as of photographs that are copies of two
        halves = [(half * 600, half * 600 + i) for half in range(2) for i in range(1, 600)]
        return join_edges(1_200, *halves, *((i, i + 600) for i in range(3)))
    cliques = [(c * 40 + i, c * 40 + j) for c in range(30) for i in range(40) for j in range(i)]
    return join_edges(1_200, *cliques, *((c * 40, c * 40 + 40) for c in range(29)))


@pytest.mark.parametrize("kind", ["hypercube", "stars in a chain", "two equal halves", "cliques in a chain"])
@pytest.mark.parametrize("count", [2, 20, 56])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_eigenvalues_of_high_multiplicity_are_found_as_often(kind: str, count: int, seed: int) -> None:
    graph = build_odd_graph(kind)
    scale = diags_array(1 / np.sqrt(graph.sum(axis=1)))
    matrix = csr_array((scale @ graph @ scale).astype(np.float32))
    with open_operator(matrix) as operator:
        found = find_largest_eigenpairs(operator, draw_first_block(matrix.shape[0], seed), count)
    exact = np.linalg.eigvalsh(matrix.toarray().astype(np.float64))[::-1]
    assert np.abs(found.values - exact[:count]).max() < 2e-5
    rest = matrix @ found.vectors - found.vectors * found.values.astype(np.float32)
    assert found.residual < 1e-4 and np.linalg.norm(rest, axis=0).max() <= found.residual + 2e-5
    assert np.abs(found.vectors.T @ found.vectors - np.eye(count)).max() < 1e-5
