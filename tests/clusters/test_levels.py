"""Coarser and finer clusters: nested whatever the clusters are, planted ones found, written beside them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from planted import gaussian
from sklearn.metrics import adjusted_rand_score

from fastcomus import Clusters, InputError, Run, cluster

SETTINGS: dict[str, Any] = {"device": "cpu", "levels": True}


def make_nested(width: int, finest: float = 0.7, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Rows (720, width) float32 and their classes at three levels, (3, 720): 4 of 3 of 3."""
    random = np.random.default_rng(0)
    levels = np.stack([np.arange(720) % count for count in (4, 12, 36)])
    spreads = zip((4, 12, 36), (3, 1.0, finest), levels, strict=True)
    rows = sum(spread * random.normal(size=(count, width))[labels] for count, spread, labels in spreads)
    return (rows + noise * random.normal(size=(720, width))).astype(np.float32), levels


def assert_nested(found: Clusters) -> None:
    levels = [one for one in (found.coarse, found.labels, found.fine) if one is not None]
    for outer, inner in pairwise(levels):
        pairs = np.unique(np.stack([outer, inner]), axis=1)
        assert pairs.shape[1] == inner.max() + 1 > outer.max() + 1  # each inner one in one outer one
    for one in levels:
        assert one.dtype == np.int32 and (np.diff(np.bincount(one)) <= 0).all()


@pytest.mark.parametrize("settings", [{}, {"method": "kmeans"}, {"method": "communities"}], ids=str)
def test_planted_levels_are_found_around_the_clusters_of_any_method(settings: dict[str, Any]) -> None:
    for width, *spreads in ((8, 0.7, 0.5), (16, 0.9, 0.6)):
        rows, levels = make_nested(int(width), *spreads)
        found = cluster(rows, 12, **SETTINGS, **settings)
        assert_nested(found)
        if width == 8:  # where all overlap, and the fine ones most
            assert found.coarse is not None and adjusted_rand_score(found.coarse, levels[0]) == 1
        else:
            assert found.fine is not None and adjusted_rand_score(found.fine, levels[2]) > 0.9
    alone = cluster(rows, 12, device="cpu", **settings)
    assert alone.coarse is None and alone.fine is None and np.array_equal(alone.labels, found.labels)


@pytest.mark.parametrize("k", [2, 5, 40])
def test_levels_are_nested_where_nothing_is_planted(k: int) -> None:
    assert_nested(cluster(np.random.default_rng(k).normal(size=(200, 4)), k, **SETTINGS))


def test_a_graph_of_ones_own_has_levels_and_few_objects_have_none() -> None:
    blocks = np.kron(np.eye(12), np.full((15, 15), 0.6)) + np.kron(np.eye(4), np.full((45, 45), 0.05)) + 0.001
    found = cluster(graph=blocks, k=12, **SETTINGS)
    assert_nested(found)
    assert found.coarse is not None and adjusted_rand_score(found.coarse, np.arange(180) // 45) == 1
    few = cluster(gaussian(3)[0], 2, **SETTINGS)
    assert few.coarse is None and few.fine is None


def test_levels_stand_beside_clusters_which_stay_as_they_are(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", preset="offline")
    rows, levels = make_nested(8)
    plain = run.cluster(rows, k=12)
    manifest = run.folder.read_manifest("clusters")
    found = run.cluster(rows, k=12, levels=True)
    assert np.array_equal(found.labels, plain.labels) and plain.coarse is None
    again = run.folder.read_manifest("clusters")
    assert manifest is not None and again is not None and again["fingerprint"] == manifest["fingerprint"]
    run.name({0: "one"})
    table, sheet = (tmp_path / "run/clusters" / name for name in ("clusters.parquet", "clusters.csv"))
    for columns in (pq.read_table(table).to_pandas(), pd.read_csv(sheet)):
        assert np.array_equal(columns["coarse"], found.coarse) and np.array_equal(columns["fine"], found.fine)
        assert adjusted_rand_score(columns["coarse"], levels[0]) == 1


def test_a_sample_has_no_levels() -> None:
    with pytest.raises(InputError, match="a sample of 100 is fitted"):
        cluster(gaussian()[0], 5, fit_on=100, **SETTINGS)
