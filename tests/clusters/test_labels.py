"""Labels, distances and filter against plain loops, SciPy and planted truth; `fastcomus.cluster` from Python."""

from __future__ import annotations

import logging
from typing import Any, cast

import numpy as np
import planted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.spatial.distance import cosine
from sklearn.metrics import adjusted_rand_score

import fastcomus
from fastcomus import InputError
from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import suggest_counts
from fastcomus.clusters.count import compute_modularity, count_by_eigengap
from fastcomus.clusters.graph import build_knn_graph
from fastcomus.clusters.labels import Clusters, cluster_rows
from fastcomus.config import ASSIGNMENTS, COUNT_CRITERIA, ClusterConfig

CPU = select("cpu")


def by_kmeans(rows: np.ndarray, k: int, share: float, n_init: int) -> Clusters:
    return cluster_rows(rows, k, "kmeans", ClusterConfig(filter=share, n_init=n_init), 0, CPU)


def assert_is_consistent(found: Clusters, n: int, k: int, share: float) -> None:
    """Everything that must hold of any clustering, the filter by a plain loop."""
    assert found.labels.shape == found.distances.shape == found.is_core.shape == (n,)
    assert found.labels.dtype == np.int32 and found.distances.dtype == np.float32 and found.is_core.dtype == bool
    assert found.centres.shape[0] == k and found.sizes.sum() == n
    assert (np.bincount(found.labels, minlength=k) == found.sizes).all() and (np.diff(found.sizes) <= 0).all()
    for cluster in range(k):
        members = [i for i in range(n) if found.labels[i] == cluster]
        nearest_first = sorted(members, key=lambda i: (found.distances[i], i))
        dropped = int(np.floor(share * len(members) + 1e-9))
        kept = nearest_first[: len(members) - dropped]
        assert sorted(kept) == [i for i in members if found.is_core[i]]
        assert kept or not members


@settings(max_examples=40)
@given(st.integers(0, 1000), st.floats(0, 0.99), st.integers(2, 6), st.integers(6, 40))
def test_filter_drops_the_farthest_of_each_cluster(seed: int, share: float, k: int, n: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    found = by_kmeans(rows, k, share, 1)
    assert_is_consistent(found, n, k, share)
    theirs = [
        cosine(row.astype(float), found.centres[c].astype(float)) for row, c in zip(rows, found.labels, strict=True)
    ]
    assert np.allclose(found.distances, theirs, atol=1e-6)


@pytest.mark.parametrize(("share", "of_ten"), [(0.0, 0), (0.1, 1), (0.2, 2), (0.3, 3), (0.7, 7), (0.99, 9), (0.05, 0)])
def test_share_of_the_filter_is_rounded_down(share: float, of_ten: int) -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    rows += np.random.default_rng(0).normal(0, 0.01, rows.shape).astype(np.float32)
    found = by_kmeans(rows, 3, share, 3)
    assert found.sizes.tolist() == [10, 10, 10]
    assert [int((~found.is_core[found.labels == c]).sum()) for c in range(3)] == [of_ten] * 3


def test_zero_rows_lie_at_distance_one() -> None:
    rows = np.array([[0, 0], [1, 0], [1.1, 0], [5, 5]], np.float32)
    found = by_kmeans(rows, 2, 0, 5)
    assert found.distances[0] == 1 and np.isfinite(found.distances).all()


METHODS = ["spectral", "kmeans", "minibatch-kmeans", "agglomerative"]


@pytest.mark.parametrize(
    "choice", [*({"method": method} for method in METHODS), *({"assign": assign} for assign in ASSIGNMENTS)], ids=str
)
def test_planted_clusters_are_found(choice: dict[str, str]) -> None:
    rows, truth = planted.gaussian()
    found = fastcomus.cluster(rows, 5, **choice)
    assert adjusted_rand_score(truth, found.labels) > 0.98
    assert_is_consistent(found, 300, 5, 0.2)


@pytest.mark.parametrize(("n", "k"), [(160, 100), (10, 10)])
def test_minibatches_leave_no_cluster_empty(n: int, k: int) -> None:
    found = fastcomus.cluster(planted.gaussian(n)[0], k, method="minibatch-kmeans", device="cpu")
    assert_is_consistent(found, n, k, 0.2)
    assert found.sizes.min() > 0


def test_unit_rows_and_qr_keep_unbalanced_classes_that_kmeans_splits() -> None:
    rows, truth = planted.dino_like(4000, 20, 0.36)
    scores = {
        assign: adjusted_rand_score(truth, fastcomus.cluster(rows, 20, assign=assign).labels) for assign in ASSIGNMENTS
    }
    assert scores["normalized"] > scores["kmeans"] + 0.05 and scores["qr"] > scores["kmeans"] + 0.05, scores


def test_qr_labels_equal_scikit_learns() -> None:
    from sklearn.cluster import SpectralClustering

    rows, _ = planted.gaussian(spread=1.5)
    affinity = build_knn_graph(rows, 20, "euclidean", 1.0, 0, CPU).affinity.toarray().astype(np.float64)
    theirs = SpectralClustering(5, affinity="precomputed", assign_labels="cluster_qr", random_state=0).fit(affinity)
    ours = fastcomus.cluster(rows, 5, n_neighbors=20, assign="qr").labels
    assert adjusted_rand_score(theirs.labels_, ours) > 0.98


@pytest.mark.parametrize("criterion", COUNT_CRITERIA)
@pytest.mark.parametrize("k", [3, 8])
def test_the_number_of_planted_clusters_is_found(criterion: str, k: int) -> None:
    rows, truth = planted.gaussian(60 * k, k, spread=0.5)
    found = fastcomus.cluster(rows, choose_k=criterion, max_k=20)
    assert len(found.sizes) == k and adjusted_rand_score(truth, found.labels) > 0.98


def test_that_only_two_kinds_of_many_objects_were_told_apart_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    for n, k in ((60, 2), (19, 2)):
        caplog.clear()
        fastcomus.cluster(planted.gaussian(n, k, spread=0.5)[0], device="cpu")
        assert f"cluster: {k} clusters, by mixing" in caplog.text
        assert ("few kinds were told apart" in caplog.text) == (n == 60)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_few_objects_get_a_number_of_clusters_too(n: int) -> None:
    rows, _ = planted.gaussian(n)
    suggested = suggest_counts(rows, ClusterConfig(), 0, CPU).counts
    for criterion in COUNT_CRITERIA:
        assert 2 <= len(fastcomus.cluster(rows, choose_k=criterion).sizes) == suggested[criterion] <= n


@pytest.mark.parametrize("k", [2, 5, 150, 300])
def test_communities_are_as_many_as_asked_for_and_the_same_again(k: int) -> None:
    rows, truth = planted.gaussian()
    found = fastcomus.cluster(rows, k, method="communities")
    assert_is_consistent(found, 300, k, 0.2)
    assert np.array_equal(found.labels, fastcomus.cluster(rows, k, method="communities").labels)
    if k == 5:
        assert adjusted_rand_score(truth, found.labels) > 0.98


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_modularity_equals_its_definition(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    affinity = build_knn_graph(random.normal(size=(30, 2)).astype(np.float32), 5, "euclidean", 1.0, 0, CPU).affinity
    labels = random.integers(0, k, 30)
    weights = affinity.toarray().astype(float)
    np.fill_diagonal(weights, 0)
    degrees = weights.sum(axis=1)
    expected = ((weights - np.outer(degrees, degrees) / weights.sum()) * (labels[:, None] == labels)).sum()
    assert abs(compute_modularity(affinity, labels) - expected / weights.sum()) < 1e-6


def test_eigengap_is_the_largest_step_after_the_first() -> None:
    assert count_by_eigengap(np.array([0, 0.9, 1.0, 1.01])) == 2
    assert count_by_eigengap(np.array([0, 0.01, 0.02, 0.5, 0.51])) == 3


def test_spectral_beats_kmeans_on_dino_like_embeddings() -> None:
    rows, truth = planted.dino_like(1500, 20, 0.605)
    scores = {
        m: adjusted_rand_score(truth, fastcomus.cluster(rows, 20, method=m).labels) for m in ("spectral", "kmeans")
    }
    assert scores["spectral"] > 0.7 and scores["spectral"] > scores["kmeans"] + 0.05, scores


@pytest.mark.parametrize("assign", ["qr", "normalized"])
def test_order_of_the_rows_does_not_matter(assign: str) -> None:
    rows, _ = planted.gaussian(400, spread=2.5)
    one = fastcomus.cluster(rows, 10, assign=assign, device="cpu").labels
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(rows))
        assert (
            adjusted_rand_score(one[order], fastcomus.cluster(rows[order], 10, assign=assign, device="cpu").labels) == 1
        )


def test_qr_takes_any_order_signs_and_precision() -> None:
    """As scikit-learn's test_cluster_qr and test_cluster_qr_permutation_invariance, for 30 seeds."""
    for seed in range(30):
        random = np.random.RandomState(seed)
        rows, order, signs = random.randn(100, 5), random.permutation(100), random.choice([-1, 1], 5)
        labels = label_by_qr(rows)
        for other, expected in (
            (rows[order], labels[order]),
            (rows * signs, labels),
            (rows.astype(np.float32), labels),
        ):
            assert adjusted_rand_score(expected, label_by_qr(other)) == 1
        assert set(label_by_qr(rows[:10])) == set(range(5))


def label_by_qr(rows: np.ndarray) -> np.ndarray:
    return cluster_rows(rows, rows.shape[1], "qr", ClusterConfig(), 0, CPU).labels


def test_rows_of_other_libraries_are_taken_or_refused() -> None:
    rows, _ = planted.gaussian(60)
    labels = fastcomus.cluster(rows, 3, device="cpu").labels
    tensor = torch.tensor(rows, requires_grad=True)
    frame = pytest.importorskip("pandas").DataFrame(rows)
    for other in (rows.tolist(), frame, tensor, tuple(rows)):
        assert (fastcomus.cluster(other, np.int64(3), device="cpu").labels == labels).all()
    for other, message in (
        (csr_array(rows), "dense; got a sparse matrix"),
        ([[1.0, 2.0], [3.0]], "got a list that NumPy makes none of"),
        (frame.astype(str), "real numbers"),
        (None, "got neither"),
    ):
        with pytest.raises(InputError, match=message):
            fastcomus.cluster(other, 3, device="cpu")


def test_equal_seeds_give_equal_bytes() -> None:
    rows, _ = planted.gaussian(spread=3.0)
    first, second = (fastcomus.cluster(rows, 8, seed=5) for _ in range(2))
    for name in ("labels", "distances", "is_core", "centres", "sizes"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


@pytest.mark.parametrize(
    ("dtype", "layout"), [(np.float16, "every other row"), (np.float64, "Fortran"), (np.int32, "backwards")]
)
def test_other_dtypes_and_layouts_give_the_same_labels(dtype: type, layout: str) -> None:
    rows, truth = planted.gaussian()
    given = (rows * (100 if dtype == np.int32 else 1)).astype(dtype)
    laid_out = {
        "every other row": np.repeat(given, 2, axis=0)[::2],
        "Fortran": np.asfortranarray(given),
        "backwards": np.ascontiguousarray(given[:, ::-1])[:, ::-1],
    }[layout]
    before = laid_out.copy()
    assert adjusted_rand_score(truth, fastcomus.cluster(laid_out, 5).labels) > 0.98
    assert (laid_out == before).all()


def test_bad_input_is_named() -> None:
    rows, _ = planted.gaussian()
    broken = rows.copy()
    broken[[7, 9], 0] = np.inf, np.nan
    for call, message in (
        (lambda: fastcomus.cluster(broken, 5), r"2 rows hold NaN or infinity \(rows 7, 9\)"),
        (lambda: fastcomus.cluster(rows[:, 0], 5), "shape"),
        (lambda: fastcomus.cluster(rows.astype(str), 5), "real numbers"),
        (lambda: fastcomus.cluster(rows, 301), "k=301 with N=300"),
        (lambda: fastcomus.cluster(rows, 1), "k must be at least 2; got 1"),
        (lambda: fastcomus.cluster(rows, method="kmeans"), "kmeans needs the number of clusters"),
        (lambda: fastcomus.cluster(rows, 5, assign="normalised"), "did you mean normalized"),
        (lambda: fastcomus.cluster(rows, 5, recall=0.0), r"recall must lie in \(0, 1\]"),
        (lambda: fastcomus.cluster(rows[:1]), "at least 2 objects; got 1"),
        (lambda: fastcomus.cluster(rows, 5, filter=1.0), r"filter must lie in \[0, 1\)"),
        (lambda: fastcomus.cluster(rows, 5, n_neighbours=10), "did you mean n_neighbors"),
        (lambda: fastcomus.cluster(rows, 5, device="cuda:99"), "--device cuda:99"),
        (lambda: fastcomus.cluster(rows, 5, device=cast(Any, None)), "device must be auto, .* got None"),
        (lambda: fastcomus.cluster(rows, 5, seed=cast(Any, "a")), "seed must be of type int; got 'a'"),
        (lambda: fastcomus.cluster(rows, 5, seed=cast(Any, None)), "seed must be of type int; got None"),
    ):
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize("n", [2, 3, 6])
def test_as_many_clusters_as_rows(n: int) -> None:
    rows, _ = planted.gaussian(n)
    for method in ("spectral", "kmeans"):
        found = fastcomus.cluster(rows, n, method=method)
        assert sorted(found.labels.tolist()) == list(range(n)) and found.is_core.all()


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("method", METHODS)
def test_fewer_different_rows_than_clusters_is_said(method: str) -> None:
    copies = 1 + 1e-6 * np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)  # as networks round them
    with pytest.raises(InputError, match=r"3 clusters need as many different objects; got 1 .* among N=50. Add images"):
        fastcomus.cluster(copies, 3, method=method)
    ten = np.repeat(np.random.default_rng(0).normal(size=(10, 16)), 100, axis=0)
    with pytest.raises(InputError, match=r"20 clusters need as many different objects; got 10 .* Lower --k"):
        fastcomus.cluster(ten, 20, method=method)
    found = fastcomus.cluster(ten, 10, method=method, filter=0.2)
    assert_is_consistent(found, 1000, 10, 0.2)
    assert (found.labels.reshape(10, 100) == found.labels[::100, None]).all() and (found.sizes == 100).all()


@pytest.mark.parametrize("assign", ASSIGNMENTS)
def test_equal_rows_by_the_thousand(assign: str) -> None:
    random = np.random.default_rng(0)
    three = np.repeat(random.normal(size=(3, 16)), 2000, axis=0)
    found = fastcomus.cluster(np.concatenate([three, random.normal(size=(500, 16))]), 5, assign=assign)
    assert len(set(found.labels[:6000:2000])) == 3 and all(len(set(found.labels[i : i + 2000])) == 1 for i in (0, 2000))


def test_parts_smaller_than_k_and_more_parts_than_k() -> None:
    random = np.random.default_rng(0)
    far = np.concatenate([random.normal(size=(300, 4)), 0.01 * random.normal(size=(4, 4)) + 1000])
    found = fastcomus.cluster(far, 8, n_neighbors=3)
    assert len(set(found.labels[-4:])) == 1 and not set(found.labels[:-4]) & set(found.labels[-4:])
    tiny = np.repeat(100 * random.normal(size=(300, 8)), 3, axis=0) + 1e-3 * random.normal(size=(900, 8))
    assert_is_consistent(fastcomus.cluster(tiny, 7, n_neighbors=3), 900, 7, 0.2)


def test_one_dimension_is_enough() -> None:
    values = np.concatenate([np.linspace(0, 1, 40), np.linspace(10, 11, 40), np.linspace(30, 31, 40)])
    found = fastcomus.cluster(values[:, None], 3, n_neighbors=10)
    assert adjusted_rand_score(np.repeat([0, 1, 2], 40), found.labels) == 1
