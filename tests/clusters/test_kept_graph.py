"""The graph and its eigenmaps are kept for other numbers of clusters, and the result does not show it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import planted
import pytest
from conftest import tree_bytes
from hypothesis import given
from hypothesis import strategies as st

from fastcomus import Run, cluster
from fastcomus.clusters.sample_size import step_up

SEARCHED = ("graph", "eigenmaps-16")


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_steps_do_not_fall_and_are_at_most_half_more(one: int, other: int) -> None:
    assert step_up(one) >= one and step_up(one) <= max(16, 1.5 * one)
    assert step_up(min(one, other)) <= step_up(max(one, other))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just more than the few whose graph is not kept."""
    file = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(file, planted.gaussian(2100, spread=2.0)[0])
    return file


@pytest.fixture(scope="module")
def clustered(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Clusters of k=5 made after k=7 and others."""
    run = Run(tmp_path_factory.mktemp("kept") / "run", preset="offline", device="cpu")
    for k in (7, 20, 5):
        run.cluster(rows, k=k)
    return run


def test_clusters_do_not_depend_on_which_k_came_first(rows: Path, clustered: Run, tmp_path: Path) -> None:
    fresh = Run(tmp_path / "run", preset="offline", device="cpu")
    found = fresh.cluster(rows, k=5)
    assert tree_bytes(fresh.folder.path / "clusters") == tree_bytes(clustered.folder.path / "clusters")
    assert np.array_equal(cluster(np.load(rows), 5, device="cpu").labels, found.labels)
    assert sorted(path.name for path in clustered.folder.path.glob("eigenmaps-*")) == ["eigenmaps-16", "eigenmaps-24"]


def test_another_k_searches_nothing_anew(rows: Path, clustered: Run, caplog: pytest.LogCaptureFixture) -> None:
    before = {name: tree_bytes(clustered.folder.path / name) for name in SEARCHED}
    stamps = {name: (clustered.folder.path / name / "manifest.json").stat().st_mtime_ns for name in SEARCHED}
    with caplog.at_level(logging.INFO, "fastcomus"):
        clustered.cluster(rows, k=6)
    assert "the graph is kept from before" in caplog.text
    assert {name: tree_bytes(clustered.folder.path / name) for name in SEARCHED} == before
    for name in SEARCHED:
        assert (clustered.folder.path / name / "manifest.json").stat().st_mtime_ns == stamps[name]


def test_another_graph_takes_its_place_and_damage_is_mended(rows: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", preset="offline", device="cpu")
    first = run.cluster(rows, k=5)
    graph = tree_bytes(run.folder.path / "graph")
    run.cluster(rows, k=5, n_neighbors=10)
    assert tree_bytes(run.folder.path / "graph") != graph
    run.cluster(rows, k=4, n_neighbors=30)
    for file in ("graph/indices.npy", "eigenmaps-16/rows.npy"):
        (run.folder.path / file).write_bytes(b"damaged")
    run.history(delete=run.history()[1].id)
    again = run.cluster(rows, k=5, filter=0.3)
    assert np.array_equal(again.labels, first.labels)
    assert tree_bytes(run.folder.path / "graph") == graph
