"""Objects moved, added clusters, what is no object; undone, kept over new clusters, and gone by in every command."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, Photographs, make_photographs, tree_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fastcomus import InputError, Run
from fastcomus.clusters.corrections import carry_corrections, correct_clusters, fill_centres
from fastcomus.clusters.labels import build_clusters
from fastcomus.run import correct as correcting
from fastcomus.run.contents import list_iterations


def read_labels(folder: Path, iteration: int, image: str) -> set[int]:
    return set(np.unique(np.asarray(Image.open(folder / f"iteration-{iteration}/masks/{image}.png"))).tolist())


def read_table(folder: Path) -> dict[str, list]:
    return pq.read_table(folder / "clusters/clusters.parquet").to_pydict()


def test_moved_objects_are_gone_by_everywhere_and_undone(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    before, run = tree_bytes(run_copy), Run(run_copy)
    own = read_table(run_copy)
    row, other = 0, next(one for one in range(24) if own["cluster"][one] != own["cluster"][0])
    target = own["cluster"][other]
    run.correct([row], target)
    run.correct([other, 5], "-")
    run.correct([7], "new")
    run.name({3: 'odd "one", 😀'})
    assert [row["cluster"] for row in run.correct().to_pylist()] == [target, -1, -1, 3]
    table = read_table(run_copy)
    assert table["found_cluster"] == own["cluster"]
    assert (table["cluster"][row], table["cluster"][other], table["cluster"][7]) == (target, -1, 3)
    assert [table["correction"][one] for one in (row, other, 7, 2)] == ["moved", "not an object", "moved", None]
    assert (table["name"][7], table["name"][5]) == ('odd "one", 😀', "not an object")
    with (run_copy / "clusters/clusters.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:5] == ["image", "cluster", "name", "distance", "core"]
    assert rows[7]["name"] == 'odd "one", 😀' and rows[7]["object"] == "7" and rows[5]["cluster"] == "-1"
    images = own["image"]
    assert read_labels(run_copy, 0, images[row]) == {0, target + 1}
    assert read_labels(run_copy, 0, images[other]) == {0} and read_labels(run_copy, 0, images[7]) == {0, 4}
    assert run.evaluate(photographs.truth, iteration=0).images == 24
    annotations = json.loads((run.export("coco", iteration=0) / "annotations/instances_default.json").read_text())
    assert [one["name"] for one in annotations["categories"]][-1] == 'odd "one", 😀'
    run.predict(photographs.images)  # by the network that knows nothing of it, and says so
    assert "does not know the last corrections" in caplog.text
    run.train(iterations=1)
    assert (run.folder.read_manifest("iteration-1") or {})["k"] == 4
    assert (run.folder.read_manifest("iteration-1") or {})["images"] <= 22
    assert "4 clusters" in run.report().read_text()
    with pytest.raises(InputError, match=r"there is no object 24; .* the rows 0 to 23"):
        run.correct([24], 0)
    with pytest.raises(InputError, match=r"there is no cluster 'cat'\. Give a number from 0 to 3"):
        run.correct([0], "cat")
    with pytest.raises(InputError, match=r"--to is missing\. Give a number from 0 to 3, a name, new, -"):
        run.correct([0])
    spoken = run.correct()
    assert len(run.correct([2], "found")) == 4  # of which nothing was said
    run.correct([row, 2, 5], "found")  # said as the other words are, and undone as they are
    table = read_table(run_copy)
    assert [table["cluster"][one] for one in (row, 5)] == [own["cluster"][one] for one in (row, 5)]
    assert [table["correction"][one] for one in (row, 5, other)] == [None, None, "not an object"]
    assert run.correct().to_pylist()[4:] and run.correct(undo=True).equals(spoken)
    assert read_table(run_copy)["cluster"][row] == target
    run.correct([row, 5], "found")
    for _ in range(4):
        run.correct(undo=True)
    with pytest.raises(InputError, match="no correction to take back"):
        run.correct(undo=True)
    after = tree_bytes(run_copy)
    for name in ("clusters/clusters.parquet", *(name for name in before if name.startswith("iteration-0/masks"))):
        assert after[name] == before[name], name
    assert list_iterations(run.folder) == [0]  # its network knows a cluster that is gone


def test_corrections_are_kept_when_clusters_or_objects_are_made_anew(
    run_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    run = Run(run_copy)
    kinds = np.array([int(name[:2]) % 3 for name in run.objects()["image"].to_pylist()])
    labels = np.array(read_table(run_copy)["cluster"])
    of_kind = {kind: int(labels[kinds == kind][0]) for kind in range(3)}
    moved, none, added = (int(np.flatnonzero(kinds == kind)[3]) for kind in range(3))
    run.name({of_kind[0]: "round"})
    run.correct([moved], of_kind[1])
    run.correct([none], "-")
    run.correct([added, added + 3], "new")
    run.name({3: "own"})
    for settings in ({"k": 2}, {"k": 4}, {"k": 3, "n_init": 4}):
        run.cluster(**settings)
        table = read_table(run_copy)
        now = np.array(table["cluster"])
        members = (kinds == 1) & (np.arange(24) != none)
        assert now[moved] == np.bincount(now[members]).argmax() and now[none] == -1
        assert now[added] == now[added + 3] >= settings["k"] and table["name"][added] == "own"
        assert table["correction"][moved] == "moved" and sum(map(bool, table["correction"])) == 4
    caplog.clear()
    first = next(one for one in run.history() if one.trained)  # listed though none of the corrections is in its masks
    assert (first.k, first.names, first.trained) == (4, 2, 2) and len(run.history()) == 4
    run.cluster(k=3, n_init=3)  # found again
    assert "corrections of 4 objects hold on" in caplog.text
    assert dict(run.name().given) == {of_kind[0]: "round", 3: "own"} and len(run.correct()) == 4
    run.correct(undo=True)
    assert dict(run.name().given) == {of_kind[0]: "round"}
    more = make_photographs(tmp_path / "more", 30).images
    (more / "00.png").rename(more / "zz.png")
    run.embed(more, replace=True)
    run.cluster()
    where = {image: place for place, image in enumerate(read_table(run_copy)["image"])}
    assert len(where) == 30 and [row["object"] for row in run.correct().to_pylist()] == [moved - 1, none - 1]
    assert list(dict(run.name().given).values()) == ["round"]
    assert read_table(run_copy)["cluster"][none - 1] == -1


def test_a_kind_that_has_no_cluster_follows_some_of_its_objects(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(run_copy)
    kinds = run.cluster(k=3).labels.copy()
    mixed = run.cluster(k=2).labels
    shared = int(np.bincount(mixed).argmax())
    kind = int(np.unique(kinds[mixed == shared])[1])
    own = np.flatnonzero(kinds == kind)
    assert len(own) == 8 and (mixed[own] == shared).all()
    run.correct([int(own[7])], shared)  # this one is right there, a person says
    with caplog.at_level(logging.INFO):
        run.correct(own[:3].tolist(), "new", alike=True)
    assert np.flatnonzero(np.array(read_table(run_copy)["cluster"]) == 2).tolist() == own[:7].tolist()
    assert "4 more objects are like these: " in caplog.text
    run.correct(undo=True)  # one step
    assert len(run.correct()) == 1
    for wrong in ({"objects": [0], "to": "found"}, {"undo": True}):
        with pytest.raises(InputError, match=r"alike goes with a cluster|give nothing else"):
            run.correct(**wrong, alike=True)
    with pytest.raises(InputError, match="no objects are given"):
        run.correct(alike=True)


@pytest.mark.parametrize("step", ["write_corrections", "write_shown_tables", "write_cluster_masks"])
def test_what_is_interrupted_between_its_files_is_made_up_for(
    run_copy: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Path(shutil.copytree(run_copy, run_copy.parent / f"undisturbed-{step}"))
    for folder in (undisturbed,):
        Run(folder).correct([3], "new")
    original = getattr(correcting, step)

    def stop(*given: object) -> None:
        if step == "write_corrections":
            original(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(correcting, step, stop)
        with pytest.raises(KeyboardInterrupt):
            Run(run_copy).correct([3], "new")
    assert len(Run(run_copy).correct()) == 1
    Run(run_copy).cluster()
    assert tree_bytes(run_copy) == tree_bytes(undisturbed)


def test_a_damaged_file_and_clusters_without_images(run_copy: Path, tmp_path: Path) -> None:
    run = Run(run_copy)
    run.correct([1, 2], "-")
    file = run_copy / "corrections.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"corrections\.parquet cannot be read"):
        run.train()
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(30, 4)))
    other = Run(tmp_path / "other", preset="offline", settings={"cluster": TINY["cluster"]})
    other.cluster(tmp_path / "rows.npy")
    with pytest.raises(InputError, match="embeddings without images"):
        other.correct([1], 0)
    assert set(read_table(tmp_path / "other")) >= {"cluster", "name", "found_cluster", "correction"}


def test_new_objects_are_not_put_where_a_person_saw_none(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    labels = np.array(read_table(run_copy)["cluster"])
    run.correct([int(row) for row in np.flatnonzero(labels == 2)[:4]], "-")
    run.correct([int(row) for row in np.flatnonzero(labels == 1)], "new")
    assigned = np.array(pq.read_table(run.assign(photographs.images))["cluster"])
    assert set(assigned.tolist()) <= {0, 1, 2, 3} and (assigned[labels == 1] == 3).mean() > 0.7


def test_corrections_find_objects_whose_boxes_changed_a_little(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(run_copy)
    run.correct([3, 4], "-")
    run.correct([9], "new")
    file = run_copy / "corrections.parquet"
    table = pq.read_table(file)
    assert table["object"].to_pylist() == [3, 4, 9]
    sides = {name: table[name].to_numpy().copy() for name in ("y1", "x0", "x1")}
    sides["y1"][0] += 1
    sides["x0"][1] += 0.9 * (sides["x1"][1] - sides["x0"][1])  # this one is another object
    for name, values in sides.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values.astype(np.int32)))
    pq.write_table(table.replace_schema_metadata({"fastcomus.objects": "others"}), file)
    assert run.correct()["object"].to_pylist() == [3, -1, 9]
    image = table["image"].to_pylist()[1]
    with caplog.at_level(logging.INFO):
        run.cluster(k=2)
    assert "corrections of 2 objects hold on" in caplog.text
    assert f"no longer found are set aside: {image}" in caplog.text


@given(st.integers(0, 10**6))
def test_carried_corrections_follow_the_majority(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(6, 30)), int(rng.integers(2, 6))
    before, now = rng.integers(0, 3, n), rng.integers(0, k, n)
    corrected = {int(row): int(rng.integers(-1, 5)) for row in rng.choice(n, rng.integers(0, 5), replace=False)}
    for row, cluster in corrected.items():
        before[row] = cluster
    carried = carry_corrections(corrected, before, now, k)
    assert carried.keys() == corrected.keys()
    others = np.array([row not in corrected for row in range(n)])
    for row, cluster in corrected.items():
        if cluster < 0:
            assert carried[row] == -1
            continue
        went = np.bincount(now[others & (before == cluster)], minlength=k)
        assert carried[row] >= k if not went.any() else went[carried[row]] > 0
    same = {row: cluster for row, cluster in corrected.items() if cluster in before[others]}
    again = carry_corrections(same, before, np.maximum(before, 0), 5)
    assert all(again[row] == cluster for row, cluster in same.items())


def test_corrected_clusters_and_centres() -> None:
    rows = np.eye(4, dtype=np.float32)[np.repeat([0, 1, 2], 5)]
    found = build_clusters(rows, np.repeat([0, 1, 2], 5), 3, 0.2)
    corrected = fill_centres(correct_clusters(found, {0: 3, 1: -1, 5: 0}), rows)
    assert corrected.labels[[0, 1, 5]].tolist() == [3, -1, 0] and corrected.sizes.tolist() == [4, 4, 5, 1]
    assert corrected.is_core[[0, 5]].all() and not corrected.is_core[1]
    assert np.allclose(corrected.centres[3], rows[0]) and np.array_equal(corrected.centres[:3], found.centres)
    assert correct_clusters(found, {}) is found  # nothing to do, nothing copied
