"""Few objects: neighbours follow their number, groups that lie apart are found, and real photographs come apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs as make_sklearn_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_score

import fastcomus
from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import suggest_counts
from fastcomus.clusters.few_objects import build_fitting_graph, find_groups_apart, measure_distances, measure_silhouette
from fastcomus.config import ASSIGNMENTS, COUNT_CRITERIA, ClusterConfig

CPU = select("cpu")


def make_blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """2 to 6 blobs of 4 to 40 rows each, at least 6 times as far apart as the rows of one."""
    random = np.random.default_rng(seed)
    sizes = random.integers(4, 41, random.integers(2, 7))
    width = int(random.choice([2, 3, 16, 384]))
    centres = 12 * np.sqrt(width) * np.stack([np.cos(np.arange(len(sizes))), np.sin(np.arange(len(sizes)))], axis=1)
    classes = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = random.normal(size=(len(classes), width))
    rows[:, :2] += centres[classes]
    return rows.astype(np.float32), classes


@pytest.mark.parametrize("seed", range(12))
def test_blobs_of_any_size_are_found_by_every_labelling(seed: int) -> None:
    rows, classes = make_blobs(seed)
    for assign in ASSIGNMENTS:
        found = fastcomus.cluster(rows, int(classes.max()) + 1, assign=assign, device="cpu")
        assert adjusted_rand_score(classes, found.labels) == 1, assign


def test_two_blobs_of_fewer_rows_than_neighbours() -> None:
    classes = np.repeat([0, 1], [11, 13])
    rows = np.random.default_rng(0).normal(size=(24, 8)) + 100 * classes[:, None]
    assert adjusted_rand_score(classes, fastcomus.cluster(rows, 2, device="cpu").labels) == 1
    assert suggest_counts(rows.astype(np.float32), ClusterConfig(), 0, CPU).counts == dict.fromkeys(COUNT_CRITERIA, 2)


def test_clusters_of_unequal_sizes_that_almost_touch() -> None:
    classes = np.repeat([0, 1, 2], [5, 30, 40])
    rows = np.random.default_rng(1).normal(size=(75, 16)) + 1.6 * np.eye(16)[classes] * 16**0.5
    assert find_groups_apart(rows.astype(np.float32), 3) is None
    assert adjusted_rand_score(classes, fastcomus.cluster(rows, 3, device="cpu").labels) > 0.95


def test_neighbours_follow_the_objects_of_a_cluster_up_to_the_setting() -> None:
    rows = np.random.default_rng(0).normal(size=(120, 8)).astype(np.float32)
    counts = [build_fitting_graph(rows, k, ClusterConfig(), 0, CPU).n_neighbors for k in (2, 4, 8, 20, 60)]
    assert counts[:4] == [30, 30, 15, 6]
    assert counts[4] >= 3  # as many as join the parts
    few = ClusterConfig(n_neighbors=5)
    assert build_fitting_graph(rows, 8, few, 0, CPU).n_neighbors == 5


def test_groups_apart_have_no_outliers_and_any_number_of_them() -> None:
    rows, classes = make_blobs(3)
    for k in (0, int(classes.max()) + 1):
        groups = find_groups_apart(rows, k)
        assert groups is not None
        assert adjusted_rand_score(classes, groups) == 1
    random = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    assert find_groups_apart(random, 0) is None
    assert find_groups_apart(np.vstack([random, [[1000] * 8]]).astype(np.float32), 0) is None  # one row is no group


def test_fewer_eigenvectors_than_clusters() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 8))
    with pytest.raises(fastcomus.InputError, match="needs as many eigenvectors as clusters; got n_components=4 with k"):
        fastcomus.cluster(rows, 10, n_components=4, device="cpu")
    for assign in ("normalized", "kmeans"):
        assert fastcomus.cluster(rows, 10, n_components=4, assign=assign, device="cpu").sizes.min() > 0


def test_what_scikit_learn_tests_of_spectral_clustering() -> None:
    """Its test_affinities and test_n_components, adapted; its other tests give an affinity, which is not taken here."""
    rows, classes = make_sklearn_blobs(n_samples=20, random_state=0, centers=[[1, 1], [-1, -1]], cluster_std=0.01)
    for assign in ASSIGNMENTS:
        assert adjusted_rand_score(classes, fastcomus.cluster(rows, 2, assign=assign, device="cpu").labels) == 1
    usual = fastcomus.cluster(rows, 2, device="cpu").labels
    assert (fastcomus.cluster(rows, 2, n_components=2, device="cpu").labels == usual).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(4))
def test_silhouettes_are_those_of_scikit_learn(metric: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = (random.normal(size=(60, 5)) + 100 * (metric == "euclidean")).astype(np.float32)
    rows[3], rows[5], rows[7] = rows[2], 0, 0  # the same row twice, rows without a direction
    distances = measure_distances(rows, metric)
    for k in (2, 7, 40, 59):  # of 59 most are alone
        labels = 3 * random.permutation(np.append(np.arange(k), random.integers(k, size=60 - k)))
        expected = silhouette_score(rows, labels, metric=metric)
        np.testing.assert_allclose(measure_silhouette(distances, labels), expected, atol=1e-5)
    assert measure_silhouette(distances, np.zeros(60, int)) == measure_silhouette(distances, np.arange(60)) == -1
