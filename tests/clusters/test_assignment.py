"""New objects: Nystroem's extension against the eigenmaps themselves, held-out planted rows, outliers, whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted
import pyarrow.parquet as pq
import pytest
from conftest import Photographs
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_rand_score

from fastcomus import InputError
from fastcomus.backends.choose import select
from fastcomus.clusters.assignment import Assigned, assign_embeddings, label_by_neighbours
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.clusters.eigenmaps import compute_eigenmaps, extend_eigenmaps
from fastcomus.config import ASSIGNMENTS, METRICS, ClusterConfig
from fastcomus.run.run import Run

CPU = select("cpu")


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1, 3, 3, 1)])
def test_extension_of_rows_that_were_there_gives_their_eigenmaps(weights: tuple[int, ...]) -> None:
    """On a circle of 60, each linked to two on both sides, W y = mu D y holds exactly."""
    steps, shares = np.array([-2, -1, 1, 2]), np.array(weights, np.float32)
    near = (np.arange(60)[:, None] + steps) % 60
    ring = csr_array((np.tile(shares, 60), near.ravel(), np.arange(0, 241, 4)), shape=(60, 60))
    maps = compute_eigenmaps(ring, 7, 0, CPU)
    assert np.allclose(extend_eigenmaps(maps.rows, maps.eigenvalues, near, shares), maps.rows, atol=1e-5)


def assigned(rows: np.ndarray, new: np.ndarray, config: ClusterConfig) -> tuple[np.ndarray, Assigned]:
    found = cluster_embeddings(rows, config, 0, CPU)
    return found.clusters.labels, assign_embeddings(new, rows, found.clusters, found.maps, config, 0.01, 0, CPU)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("assign", ASSIGNMENTS)
def test_held_out_objects_come_where_a_clustering_of_all_puts_them(assign: str, metric: str) -> None:
    """As far as clustering a part agrees with clustering all: the rest is not the assignment's doing."""
    rows, _ = planted.dino_like(1500, 10, 0.45)
    config = ClusterConfig(k=10, assign=assign, metric=metric)
    full = cluster_embeddings(rows, config, 0, CPU).clusters.labels
    part, found = assigned(rows[:1200], rows[1200:], config)
    agreement = adjusted_rand_score(full[:1200], part)
    assert agreement > 0.7
    assert adjusted_rand_score(full[1200:], found.labels) > agreement - 0.06
    assert found.distances.min() >= 0 and found.distances.max() <= 2
    assert found.novelty.min() >= 0 and found.novelty.max() <= 1
    assert found.is_outlier.mean() < 0.05


def test_leaving_one_out_mostly_gives_its_own_cluster() -> None:
    rows, _ = planted.dino_like(1500, 10, 0.45)
    config = ClusterConfig(k=10)
    found = cluster_embeddings(rows, config, 0, CPU)
    near = CPU.find_neighbors(rows, 30, 1, 0).indices[:, 1:]
    labels, _ = label_by_neighbours(rows, near, found.clusters, found.maps, config)
    assert (labels == found.clusters.labels).mean() > 0.95


@pytest.mark.parametrize(
    "config",
    [
        ClusterConfig(k=5),
        ClusterConfig(k=5, method="kmeans"),
        ClusterConfig(k=5, method="kmeans", metric="cosine"),
        ClusterConfig(k=5, method="minibatch-kmeans"),
        ClusterConfig(k=5, method="agglomerative"),
        ClusterConfig(method="communities"),
    ],
    ids=lambda config: config.method,
)
def test_every_method_can_be_assigned_to_and_strangers_are_flagged(config: ClusterConfig) -> None:
    rows, truth = planted.gaussian(600)
    far = 40 * np.random.default_rng(1).standard_normal((7, 12)).astype(np.float32)
    labels, found = assigned(rows[:500], np.concatenate([rows[500:], far]), config)
    assert adjusted_rand_score(truth[:500], labels) > 0.98
    assert adjusted_rand_score(truth[500:], found.labels[:100]) > 0.98
    own = {label: truth[:500][labels == label][0] for label in np.unique(labels)}
    assert [own[label] for label in found.labels[:100]] == truth[500:].tolist()
    if config.metric == "cosine":  # what is far in a common direction is no stranger to it
        return
    assert found.is_outlier[100:].all() and found.is_outlier[:100].mean() < 0.06


def test_no_new_object_is_no_trouble() -> None:
    rows, _ = planted.gaussian()
    _, found = assigned(rows, rows[:0], ClusterConfig(k=5))
    assert found.labels.shape == found.distances.shape == found.novelty.shape == found.is_outlier.shape == (0,)


def test_more_neighbours_than_objects() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    labels, found = assigned(rows, rows, ClusterConfig(k=2, method="kmeans"))
    assert (found.labels == labels).all()


def test_images_of_a_run_come_back_to_their_clusters(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    clusters = pq.read_table(run_copy / "clusters/clusters.parquet")
    file = run.assign(photographs.images)
    assert file == run_copy / "assigned/assigned.parquet"
    found = pq.read_table(file)
    assert found["image"].to_pylist() == clusters["image"].to_pylist()
    assert found["cluster"].to_pylist() == clusters["cluster"].to_pylist()
    before = {path: path.stat().st_mtime_ns for path in (run_copy / "assigned/objects").iterdir()}
    run.assign(photographs.images)
    assert {path: path.stat().st_mtime_ns for path in (run_copy / "assigned/objects").iterdir()} == before


def test_rows_of_ones_own_are_assigned(tmp_path: Path) -> None:
    rows, _ = planted.gaussian(600)
    np.save(tmp_path / "old.npy", rows[:500])
    np.save(tmp_path / "new.npy", rows[500:])
    run = Run(tmp_path / "run", preset="offline")
    labels = run.cluster(tmp_path / "old.npy", k=5).labels
    found = pq.read_table(run.assign(embeddings=tmp_path / "new.npy", output=tmp_path / "out"))
    assert found["row"].to_pylist() == list(range(100))
    assert (found["cluster"].to_numpy() == labels[:100]).all()  # classes repeat every five rows


def test_what_cannot_be_assigned_is_said(tmp_path: Path, run_copy: Path, photographs: Photographs) -> None:
    rows, _ = planted.gaussian()
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "narrow.npy", rows[:, :5])
    run = Run(tmp_path / "run", preset="offline")
    with pytest.raises(InputError, match="no run folder"):
        Run(tmp_path / "none", preset="offline").assign(embeddings=tmp_path / "rows.npy")
    run.cluster(tmp_path / "rows.npy", k=5)
    with pytest.raises(InputError, match="12 numbers each and the new ones 5"):
        run.assign(embeddings=tmp_path / "narrow.npy")
    with pytest.raises(InputError, match="give either a folder of images or --embeddings"):
        run.assign()
    with pytest.raises(InputError, match="outliers must lie in"):
        run.assign(embeddings=tmp_path / "rows.npy", outliers=1.0)
    np.save(tmp_path / "rows.npy", rows + 1)
    with pytest.raises(InputError, match="not of the objects that are there now"):
        run.assign(embeddings=tmp_path / "rows.npy")
    run.cluster(rows, k=5)
    with pytest.raises(InputError, match="array in memory"):
        run.assign(embeddings=tmp_path / "rows.npy")
    with pytest.raises(InputError, match="leave it out"):
        Run(run_copy).assign(photographs.images, masks=photographs.truth)
