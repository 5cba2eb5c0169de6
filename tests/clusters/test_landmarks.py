"""Landmarks: the graph's weights by hand, and clusters of a sample that are as good as those of all rows."""

from __future__ import annotations

import numpy as np
import planted
import pytest
from sklearn.metrics import adjusted_rand_score

from fastcomus import cluster
from fastcomus.backends.choose import select
from fastcomus.clusters.assignment import assign_embeddings
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.clusters.landmarks import build_landmark_graph, count_direct_neighbors, count_landmarks
from fastcomus.config import ClusterConfig


def test_landmarks_are_linked_by_the_rows_near_to_both_and_by_their_own_graph() -> None:
    neighbors = np.array([[0, 1], [1, 0], [2, 3], [2, 3]])  # the last one's copy comes first
    links = np.array([[0, 2], [0, 2], [2, 0], [1, 2], [0, 1]])
    graph = build_landmark_graph(neighbors, links, 0.9, np.arange(4))
    rows = np.array([[0, 1, 3, 0], [1, 0, 1, 0], [3, 1, 0, 0], [0, 0, 0, 0]])  # near to both
    direct = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_allclose(graph.affinity.toarray(), (rows + 0.25 * direct) / 3, rtol=1e-6)
    assert graph.nearest is not None and np.array_equal(graph.nearest, [[0, 1], [1, 0], [2, 3], [3, 2]])
    assert graph.component_sizes == (4,) and graph.recall == 0.9 and graph.n_neighbors == 2


def test_a_landmark_that_the_search_did_not_find_for_itself_comes_first() -> None:
    graph = build_landmark_graph(np.array([[1, 2], [0, 2], [1, 0]]), np.array([[0, 1]]), 1.0, np.arange(3))
    assert np.array_equal(graph.nearest, [[0, 1], [1, 0], [2, 1]])  # type: ignore[arg-type]


def test_links_follow_the_neighbours_of_the_graph_of_all_rows() -> None:
    assert [count_landmarks(n) for n in (5, 30, 60)] == [2, 3, 6]
    assert [count_direct_neighbors(n) for n in (5, 20, 30, 60)] == [5, 12, 12, 24]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sample_by_landmarks_is_as_good_as_all_rows_where_the_sample_alone_is_not(seed: int) -> None:
    """Classes that overlap so much that a fifth of the rows shows them poorly."""
    rows, truth = planted.dino_like(15_000, 30, 0.42, seed)
    whole = cluster(rows, 30, seed=seed, device="cpu")
    part = cluster(rows, 30, fit_on=3_000, seed=seed, device="cpu")
    config, cpu = ClusterConfig(k=30), select("cpu")
    known, new = rows[part.is_fitted], rows[~part.is_fitted]
    alone = cluster_embeddings(known, config, seed, cpu)
    others = assign_embeddings(new, known, alone.clusters, alone.maps, config, 0.01, seed, cpu).labels
    score, score_alone = (
        adjusted_rand_score(truth[~part.is_fitted], one) for one in (part.labels[~part.is_fitted], others)
    )
    assert score > score_alone + 0.05
    assert adjusted_rand_score(truth, part.labels) > adjusted_rand_score(truth, whole.labels) - 0.03
