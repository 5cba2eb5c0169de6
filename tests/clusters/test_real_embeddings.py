"""The clustering core on embeddings of real photographs, step by step against scikit-learn's recipe."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.cluster import k_means
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

from fastcomus.backends.choose import select
from fastcomus.clusters.eigenmaps import compute_eigenmaps
from fastcomus.clusters.graph import build_knn_graph
from fastcomus.clusters.labels import cluster_rows
from fastcomus.config import ClusterConfig
from fastcomus.run.run import Run
from fastcomus.store.embeddings import extract_embeddings
from places import MSRC14

pytestmark = pytest.mark.skipif(not MSRC14.is_dir(), reason="the data set msrc14 is not here")
CPU = select("cpu")
CLASSES = 14


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """(494, 1280): the photographs' objects, cut out by their true masks."""
    images = tmp_path_factory.mktemp("msrc14")
    for name in (MSRC14 / "objects.txt").read_text().split():
        (images / f"{name}.jpg").symlink_to(MSRC14 / "JPEGImages" / f"{name}.jpg")
    run = Run(tmp_path_factory.mktemp("run"), preset="offline", settings={"embed": {"crop_size": 128}})
    run.embed(images, masks=str(MSRC14 / "Saliency"))
    return extract_embeddings(run.objects())


@pytest.fixture(scope="module")
def recipe(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's graph, eigenmaps and labels, in float64."""
    directed = kneighbors_graph(embeddings.astype(np.float64), 30, include_self=True)
    graph = 0.5 * (directed + directed.T)
    maps = spectral_embedding(graph, n_components=CLASSES, random_state=0, drop_first=False)
    return graph.toarray(), maps, k_means(maps, CLASSES, random_state=0, n_init=10)[1]


def test_graph_equals_scikit_learns(embeddings: np.ndarray, recipe: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    graph = build_knn_graph(embeddings, 30, "euclidean", 1.0, 0, CPU)
    # A few near ties fall otherwise in float32.
    assert (graph.affinity.toarray() != recipe[0]).sum() <= 8


def test_eigenmaps_span_scikit_learns_subspace(
    embeddings: np.ndarray, recipe: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    maps = compute_eigenmaps(build_knn_graph(embeddings, 30, "euclidean", 1.0, 0, CPU).affinity, CLASSES, 0, CPU)
    assert subspace_angles(maps.rows.astype(np.float64), recipe[1]).max() < 1e-3


def test_labels_equal_the_recipes(embeddings: np.ndarray, recipe: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    maps = compute_eigenmaps(build_knn_graph(embeddings, 30, "euclidean", 1.0, 0, CPU).affinity, CLASSES, 0, CPU)
    labels = cluster_rows(maps.rows, CLASSES, "kmeans", ClusterConfig(), 0, CPU).labels
    assert adjusted_rand_score(recipe[2], labels) > 0.99


def test_every_photograph_has_an_embedding_of_unit_length(embeddings: np.ndarray) -> None:
    assert embeddings.shape == (len((MSRC14 / "objects.txt").read_text().split()), 1280)
    assert np.abs(np.linalg.norm(embeddings, axis=1) - 1).max() < 1e-5
