"""The number of clusters by joining communities that mix: planted sets of many sizes, and joins by definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from fastcomus.backends.choose import select
from fastcomus.clusters.granularity import weigh_count
from fastcomus.clusters.graph import build_knn_graph
from fastcomus.clusters.mixing import count_joins, count_unmixed, cut_joins, find_steady, join_parts

CPU = select("cpu")


def make_classes(sizes: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, 48) float32 in overlapping classes of these sizes, and the classes (N,)."""
    random = np.random.default_rng(seed)
    classes = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rows = 1.5 * random.normal(size=(len(sizes), 48))[classes] + random.normal(size=(len(classes), 48))
    return rows.astype(np.float32), classes


@pytest.mark.parametrize(
    "sizes",
    [[20] * 3, [6] * 14, [50] * 40, [8, 30, 60, 400], [3, 300] + [40] * 8, [600, 600]],
    ids=["60 in 3", "6 each", "40 classes", "unequal", "one tiny", "two"],
)
def test_clusters_of_any_number_and_size_are_counted(sizes: list[int]) -> None:
    rows, _ = make_classes(sizes, 0)
    found = count_unmixed(build_knn_graph(rows, 30, "euclidean", 1.0, 0, CPU), 0)
    assert abs(np.log(found / len(sizes))) <= 0.15


def test_joins_are_by_definition_and_rebuild_what_was_cut_up() -> None:
    rows, classes = make_classes([40] * 6, 1)
    affinity = build_knn_graph(rows, 12, "euclidean", 1.0, 0, CPU).affinity
    parts = 2 * classes + np.random.default_rng(0).integers(0, 2, len(classes))  # each class in two halves
    joins = join_parts(affinity, parts)
    walks = affinity.toarray()
    one, other = (parts == part for part in joins.pairs[0])
    between = walks[one][:, other].sum()
    expected = between / walks[one][:, one | other].sum() + between / walks[other][:, one | other].sum()
    assert abs(joins.mixing[0] - expected) < 1e-5
    assert adjusted_rand_score(cut_joins(joins, 6), classes) == 1
    assert count_joins(joins, 0.25) == 6
    assert len(np.unique(cut_joins(joins, 0))) == 12


def test_a_large_even_cluster_is_not_counted_by_its_pieces() -> None:
    random = np.random.default_rng(0)  # 71 pieces, none of which mixes much with another, were counted once
    centres = random.normal(size=(2, 1, 384)) / np.sqrt(384)
    rows = (centres + 1.4 * random.normal(size=(2, 2500, 384)) / np.sqrt(384)).reshape(-1, 384).astype(np.float32)
    assert count_unmixed(build_knn_graph(rows, 30, "euclidean", 0.95, 0, CPU), 0) == 2


def test_many_small_classes_that_overlap_are_counted_and_said_to_be_unsure() -> None:
    random = np.random.default_rng(0)  # among ten neighbours each most are of other classes: 2 were counted
    classes = random.permutation(np.repeat(np.arange(80), 15))
    rows = 0.75 * random.normal(size=(80, 48))[classes] + random.normal(size=(1200, 48))
    graph = build_knn_graph(rows.astype(np.float32), 30, "euclidean", 1.0, 0, CPU)
    found = count_unmixed(graph, 0)
    assert abs(np.log(found / 80)) <= 0.15
    assert weigh_count(graph, found, 0).is_unsure()


def test_steady_parts_are_those_that_another_run_finds_too() -> None:
    parts, others = np.repeat([0, 1, 2], 6), np.array([3, 3, 3, 3, 3, 1, 0, 0, 4, 4, 1, 1, 2, 2, 2, 2, 2, 2])
    assert find_steady(parts, others).tolist() == [True, False, True]


def test_a_graph_of_ones_own_is_counted_too() -> None:
    blocks = np.kron(np.eye(4), np.ones((10, 10))) - np.eye(40)
    from fastcomus.clusters.graph import take_graph

    assert count_unmixed(take_graph(csr_array(blocks.astype(np.float32))), 0) == 4
