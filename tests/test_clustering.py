"""Graph, eigenmaps, labels and filter against scikit-learn, plain loops and planted truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

import fastcomus
from fastcomus import InputError
from fastcomus.backends import select
from fastcomus.backends.cpu import otsu_threshold
from fastcomus.clustering import cluster_rows
from fastcomus.graph import knn_graph
from fastcomus.spectral import eigenmaps

CPU = select("cpu")


def planted(n: int = 300, k: int = 5, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(n) % k
    return (3 * rng.normal(size=(k, 12))[truth] + spread * rng.normal(size=(n, 12))).astype(np.float32), truth


def test_graph_equals_scikit_learns_entry_for_entry() -> None:
    rows, _ = planted()
    theirs = kneighbors_graph(rows, 30, include_self=True)
    difference = knn_graph(rows, 30, CPU).affinity - (theirs + theirs.T) / 2
    assert abs(difference).max() == 0


def test_eigenmaps_span_scikit_learns_subspace() -> None:
    rows, _ = planted(spread=2.0)
    graph = knn_graph(rows, 30, CPU)
    maps = eigenmaps(graph.affinity, 5, 0, CPU)
    theirs = spectral_embedding(graph.affinity.toarray(), n_components=5, drop_first=False, random_state=0)
    assert subspace_angles(maps.rows.astype(float), theirs).max() < 1e-3
    assert abs(maps.eigenvalues[0]) < 1e-9 and (np.diff(maps.eigenvalues) >= 0).all() and maps.residual < 1e-6


def test_parts_of_the_graph_are_told() -> None:
    rows, truth = planted(spread=0.01)
    assert knn_graph(rows, 10, CPU).component_sizes == (60,) * 5
    assert adjusted_rand_score(truth, fastcomus.cluster(rows, 5, n_neighbors=10).labels) == 1


@pytest.mark.parametrize("method", ["spectral", "kmeans"])
def test_planted_clusters_are_found(method: str) -> None:
    rows, truth = planted()
    found = fastcomus.cluster(rows, 5, method=method)
    assert adjusted_rand_score(truth, found.labels) > 0.98
    assert (found.sizes == np.bincount(found.labels)).all() and (np.diff(found.sizes) <= 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 0.99), st.integers(2, 6))
def test_filter_drops_the_farthest_of_each_cluster(seed: int, share: float, k: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    found = cluster_rows(rows, k, share, 1, 0, CPU)
    for cluster in range(k):
        members = np.flatnonzero(found.labels == cluster)
        centre = found.centres[cluster].astype(float)
        cosine = rows[members] @ centre / np.linalg.norm(rows[members].astype(float), axis=1) / np.linalg.norm(centre)
        assert np.allclose(found.distances[members], 1 - cosine, atol=1e-5)
        dropped = members[~found.is_core[members]]
        assert len(dropped) == int(np.floor(share * len(members) + 1e-9))
        if 0 < len(dropped) < len(members):
            assert found.distances[dropped].min() >= found.distances[members[found.is_core[members]]].max()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes_and_layouts_give_the_same_labels(dtype: type) -> None:
    rows, truth = planted()
    strided = np.repeat(rows.astype(dtype), 2, axis=0)[::2]
    assert adjusted_rand_score(truth, fastcomus.cluster(strided, 5).labels) > 0.98


def test_bad_embeddings_are_named() -> None:
    rows, _ = planted()
    broken = rows.copy()
    broken[7, 0] = np.inf
    with pytest.raises(InputError, match="rows 7"):
        fastcomus.cluster(broken, 5)
    with pytest.raises(InputError, match="shape"):
        fastcomus.cluster(rows[:, 0], 5)
    with pytest.raises(InputError, match=r"k=301 with N=300"):
        fastcomus.cluster(rows, 301)


def test_few_rows_and_equal_rows_are_clustered() -> None:
    rows, _ = planted(n=6, k=3)
    assert len(fastcomus.cluster(rows, 3).labels) == 6
    assert (CPU.knn(np.ones((50, 4), np.float32), 5)[:, 0] == np.arange(50)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_otsu_splits_like_scikit_image(seed: int) -> None:
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, size=(20, 30)) if seed % 2 else rng.choice([20, 30, 200, 220], size=(20, 30))
    saliency = (levels / 255).astype(np.float32)
    assert ((saliency > otsu_threshold(saliency)) == (levels > filters.threshold_otsu(levels.astype(np.uint8)))).all()
    assert not (np.full((4, 4), 0.5) > otsu_threshold(np.full((4, 4), 0.5))).any()
