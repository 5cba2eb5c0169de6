"""Clusters of a sample with all other rows put into them: planted truth, quantiles over all, files, engines, sizes."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import tree_bytes
from sklearn.metrics import adjusted_rand_score

from fastcomus import InputError, Run, cluster
from fastcomus.backends.choose import select
from fastcomus.clusters import near_rows, sampled
from fastcomus.clusters.files import read_clusters
from fastcomus.clusters.near_rows import divide_rows
from fastcomus.clusters.sample_size import choose_sample_size, measure_memory
from fastcomus.config import ASSIGNMENTS, ClusterConfig
from fastcomus.store.row_blocks import ArrayRows, open_rows

CPU = select("cpu")


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    return planted.gaussian(3000, spread=1.5)


@pytest.fixture(params=["few", "landmarks"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 512 rows, for a sample of few rows and for one that all rows, or every second one, link."""
    if request.param == "landmarks":
        monkeypatch.setattr(sampled, "FEW_ROWS", 100)
        monkeypatch.setattr(sampled, "MOST_ROWS", 3)
    monkeypatch.setattr(sampled, "BLOCK_ROWS", 512)
    monkeypatch.setattr("fastcomus.run.linking.BLOCK_ROWS", 512)


@pytest.mark.parametrize(
    "settings",
    [
        *({"assign": assign} for assign in ASSIGNMENTS),
        {"method": "kmeans"},
        {"method": "communities", "k": 0},
        {"metric": "cosine"},
        {"k": 0},
    ],
    ids=str,
)
def test_a_sample_finds_what_the_whole_finds(blobs: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> None:
    rows, truth = blobs
    settings = {"k": 5, "device": "cpu", **settings}
    whole, part = cluster(rows, **settings), cluster(rows, fit_on=600, **settings)
    assert adjusted_rand_score(truth, part.labels) > adjusted_rand_score(truth, whole.labels) - 0.01
    assert part.is_fitted.sum() == 600 and whole.is_fitted.all()
    assert (np.diff(part.sizes) <= 0).all() and part.sizes.sum() == 3000


def test_small_clusters_of_a_small_sample_keep_their_rows() -> None:
    """Ten rows of each in the sample: as many neighbours as in larger ones would mix them."""
    rows, truth = planted.gaussian(1200, k=40, spread=0.7)
    found = cluster(rows, 40, fit_on=400, device="cpu")
    assert adjusted_rand_score(truth[~found.is_fitted], found.labels[~found.is_fitted]) > 0.97


def test_the_filter_is_by_quantiles_of_all_members(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    found = cluster(blobs[0], 5, fit_on=500, filter=0.25, device="cpu")
    for one in range(5):
        members = found.labels == one
        left_out = members & ~found.is_core
        assert left_out.sum() == int(0.25 * members.sum())
        assert found.distances[left_out].min() >= found.distances[members & found.is_core].max()


@pytest.mark.usefixtures("small_blocks")
def test_a_run_gives_the_same_in_blocks_from_any_file(blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    rows = blobs[0]
    half = rows.astype(np.float16)
    np.save(tmp_path / "half.npy", half)
    table = pa.table({"embedding": list(half.astype(np.float32))})
    pq.write_table(table, tmp_path / "half.parquet", row_group_size=700)
    expected = cluster(half.astype(np.float32), 5, fit_on=600, device="cpu")
    for name in ("half.npy", "half.parquet"):
        run = Run(tmp_path / name.replace(".", "-"), preset="offline", device="cpu")
        found = run.cluster(tmp_path / name, k=5, fit_on=600)
        stored = read_clusters(run.folder)
        for one in (found, stored):
            assert np.array_equal(one.labels, expected.labels) and np.array_equal(one.is_core, expected.is_core)
            assert np.array_equal(one.is_fitted, expected.is_fitted)
        names = {path.name for path in (run.folder.path / "clusters").iterdir()}
        assert {name.split(".")[0] for name in names} == {"manifest", "clusters", "centres", "eigenmaps", "eigenvalues"}
    assigned = pq.read_table(run.assign(embeddings=tmp_path / "half.npy"))
    assert (assigned["cluster"].to_numpy() == found.labels).mean() > 0.97


@pytest.mark.usefixtures("small_blocks")
def test_parts_of_a_killed_command_are_used(
    blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", blobs[0])
    whole, run = (Run(tmp_path / name, preset="offline", device="cpu") for name in ("whole", "run"))
    whole.cluster(tmp_path / "rows.npy", k=5, fit_on=600)
    made: list[int] = []
    link_block = sampled.link_block

    def stop_at_third(rows: Any, start: int, *rest: Any) -> Any:
        made.append(start)
        if len(made) == 3:
            raise KeyboardInterrupt
        return link_block(rows, start, *rest)

    monkeypatch.setattr("fastcomus.run.linking.link_block", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run.cluster(tmp_path / "rows.npy", k=5, fit_on=600)
    run.cluster(tmp_path / "rows.npy", k=5, fit_on=600)
    assert made == [0, 512, 1024, 1024, 1536, 2048, 2560]
    assert tree_bytes(run.folder.path / "clusters") == tree_bytes(whole.folder.path / "clusters")
    run.cluster(tmp_path / "rows.npy", k=7, fit_on=600)  # links do not depend on k
    assert len(made) == 7
    run.folder.resolve_file("links/part-00002.parquet").write_bytes(b"damaged")
    run.cluster(tmp_path / "rows.npy", k=8, fit_on=600)
    assert made[7:] == [1024]
    run.cluster(tmp_path / "rows.npy", k=8, fit_on=700)
    assert made[8:] == [0, 512, 1024, 1536, 2048, 2560]


def test_many_rows_are_searched_in_lists_to_the_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = planted.gaussian(6000, k=30, spread=2.0)
    known, new = rows[:4000], rows[4000:]
    monkeypatch.setattr(near_rows, "_ALL_PAIRS", 1e6)
    monkeypatch.setattr(near_rows, "_QUERIES", 700)
    true = CPU.find_nearest(new, known, 20)[0]
    probes = []
    for recall in (0.8, 0.95):
        near = divide_rows(known, new[:400], 2000, 20, recall, 0, CPU)
        found, lengths = near.search(new, 20, CPU, 2)
        hits = np.mean([len({*one} & {*other}) / 20 for one, other in zip(found, true, strict=True)])
        assert near.recall >= recall and abs(hits - near.recall) < 0.02
        distances = np.linalg.norm(known[found] - new[:, None], axis=2)
        assert np.allclose(distances, lengths, atol=1e-2) and (np.diff(lengths) >= 0).all()
        probes.append(near.probes)
    assert len(near.centres) == 253 and probes[0] < probes[1] < 253
    assert divide_rows(known, new, 2000, 20, 1.0, 0, CPU).probes == 1  # exact: one list


def test_lists_without_rows_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_rows, "_ALL_PAIRS", 1)
    rng = np.random.default_rng(0)
    places = rng.normal(size=(5, 12)).astype(np.float32)
    rows, new = (places[rng.integers(0, 5, count)] for count in (2_000, 300))
    new = new + np.float32(0.1)
    near = divide_rows(rows, new[:50], 300, 3, 0.9, 0, CPU)
    assert (np.diff(near.bounds) > 0).all() and len(near.centres) == len(near.bounds) - 1 < 178
    found, lengths = near.search(new, 3, CPU, 2)
    assert np.allclose(lengths, np.linalg.norm(rows[found] - new[:, None], axis=2), atol=1e-3)
    assert np.allclose(lengths, 0.1 * np.sqrt(12), atol=1e-2)


def test_what_a_sample_may_miss_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows, _ = planted.gaussian(3000)
    rows = np.concatenate([rows, 30 + np.random.default_rng(1).standard_normal((20, 12), np.float32)])
    missing = next(seed for seed in range(99) if (np.random.default_rng(seed).permutation(3020)[:100] < 3000).all())
    with caplog.at_level(logging.INFO, "fastcomus"):
        cluster(rows, 5, fit_on=100, seed=missing, device="cpu")
    assert "fitted on 100 of 3020 objects; groups of fewer than about 302 objects may be missed" in caplog.text
    told = re.search(r"(\d+) objects lie farther from the sample", caplog.text)
    assert told and 20 <= int(told[1]) < 100


def test_without_a_number_memory_decides(caplog: pytest.LogCaptureFixture) -> None:
    config = ClusterConfig(k=80)
    assert choose_sample_size(config, 118_000, 8 * 10**9) == 118_000
    with caplog.at_level(logging.INFO, "fastcomus"):
        assert choose_sample_size(config, 10**7, 8 * 10**9) == 700_000
    assert "fitted on 700000 of 10000000 objects, since all would take about 88 GB" in caplog.text
    assert choose_sample_size(replace(config, fit_on=5000), 10**7, 8 * 10**9) == 5000
    assert 2**28 < measure_memory() < 2**50


def test_bad_sizes_and_rows_are_told(blobs: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    rows = blobs[0]
    for fit_on, told in ((3001, "got 3001 with N=3000"), (4, "got 4 with k=5"), (1, "at least 2"), ("all", "type int")):
        with pytest.raises(InputError, match=told):
            cluster(rows, 5, fit_on=fit_on, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--fit-on draws a sample"):
        cluster(k=5, graph=np.ones((9, 9)), fit_on=8, device="cpu")
    broken = rows.copy()
    broken[2999] = np.nan
    np.save(tmp_path / "broken.npy", broken)
    np.save(tmp_path / "flat.npy", rows[:, 0])
    run = Run(tmp_path / "run", preset="offline", device="cpu")
    for name, told in (("broken", "must be finite"), ("flat", r"shape \(N, D\)"), ("none", "none.npy do not exist")):
        with pytest.raises(InputError, match=told):
            run.cluster(tmp_path / f"{name}.npy", k=5, fit_on=100)


def test_parts_of_different_widths_are_told(tmp_path: Path) -> None:
    for name, width in (("a", 4), ("b", 5)):
        pq.write_table(pa.table({"embedding": list(np.ones((10, width), np.float32))}), tmp_path / f"{name}.parquet")
    rows = replace(open_rows(tmp_path / "a.parquet"), files=("a.parquet", "b.parquet"), digests=("", ""), ends=(10, 20))
    assert rows.read(3, 9).shape == (6, 4) and rows.read(12, 20).shape == (8, 5)
    with pytest.raises(InputError, match="same number of values"):
        rows.read(5, 15)
    assert np.array_equal(sampled.gather_rows(ArrayRows(np.eye(9)), np.array([2, 7])), np.eye(9)[[2, 7]])


def test_a_block_of_a_parquet_file_reads_its_row_groups_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the groups, of one file or of two with an empty one between, every block holds the rows of the whole."""
    whole = np.random.default_rng(0).normal(size=(250, 3)).astype(np.float32)
    for name, part in (("a", whole[:130]), ("none", whole[:0]), ("b", whole[130:])):
        table = pa.table({"embedding": pa.array(list(part), pa.list_(pa.float32()))})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=20)
    files = ("a.parquet", "none.parquet", "b.parquet")
    rows = replace(open_rows(tmp_path / "a.parquet"), files=files, digests=("", "", ""), ends=(130, 130, 250))
    read_row_groups, groups = pq.ParquetFile.read_row_groups, []

    def note_groups(opened: pq.ParquetFile, wanted: range, *rest: Any) -> pa.Table:
        groups.extend(wanted)
        return read_row_groups(opened, wanted, *rest)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", note_groups)
    for start, stop in ((0, 250), (0, 1), (19, 21), (40, 60), (125, 131), (130, 150), (249, 250)):
        groups.clear()
        assert np.array_equal(rows.read(start, stop), whole[start:stop])
        first, last = ([one // 20, (one - 130) // 20][one >= 130] for one in (start, stop - 1))
        assert groups == (
            list(range(first, last + 1)) if start >= 130 or stop <= 130 else [*range(first, 7), *range(last + 1)]
        )
