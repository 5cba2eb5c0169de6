"""Clusters put aside with their networks, masks, names and scores, and found again; names that follow their objects."""

from __future__ import annotations

import logging
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from conftest import Photographs, make_photographs, tree_bytes

from fastcomus import InputError
from fastcomus.clusters.names import carry_names
from fastcomus.run.run import Run
from fastcomus.store import shelf

MOVED = ("clusters/", "iteration-", "names.toml", "evaluation/", "report/")


def read_results(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree_bytes(folder).items() if name.startswith(MOVED)}


def test_other_clusters_and_back_finds_network_masks_names_and_scores(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    run = Run(run_copy)
    run.name({0: "round"})
    before = read_results(run_copy)
    run.cluster(k=2)
    assert run.folder.read_manifest("iteration-1") is None
    with pytest.raises(
        InputError, match=r"run fastcomus train, or go back to .* fastcomus history --use [0-9a-f]{12}\."
    ):
        run.predict(photographs.images)
    present, kept = run.history()
    assert (present.k, present.trained, present.is_present) == (2, 0, True)
    assert (kept.k, kept.trained, kept.names, kept.is_present) == (3, 2, 1, False)
    assert kept.size_bytes > sum(map(len, before.values()))
    assert abs(datetime.now() - datetime.fromisoformat(present.made)) < timedelta(minutes=5)
    caplog.clear()
    Run(run_copy).cluster(k=3)
    assert "cluster: found again, 24 objects in 3 clusters" in caplog.text
    assert read_results(run_copy) == before
    Run(run_copy).train()
    assert "iteration-1: up to date" in caplog.text and "iteration-2: up to date" in caplog.text
    run.history(use=present.id)
    assert Run(run_copy).config.cluster.k == 2
    run.history(delete=kept.id)
    assert [one.k for one in run.history()] == [2]
    with pytest.raises(InputError, match=f"no clusters are kept under '{kept.id}' in .*[.?] See"):
        run.history(use=kept.id)


@pytest.mark.parametrize("moved", range(8))
def test_moves_that_are_interrupted_are_finished(run_copy: Path, monkeypatch: pytest.MonkeyPatch, moved: int) -> None:
    """The process ends before one of the renames that put clusters aside, or of those that bring them back."""
    before = read_results(run_copy)
    Run(run_copy).cluster(k=2)
    other = read_results(run_copy)
    renames, move = [], shelf._move

    def stop_at_once(source: Path, target: Path) -> None:
        renames.append(source)
        if len(renames) > moved:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(shelf, "_move", stop_at_once)
    with pytest.raises(KeyboardInterrupt):
        Run(run_copy).cluster(k=3)
    monkeypatch.undo()
    Run(run_copy).cluster(k=3)
    assert read_results(run_copy) == before
    Run(run_copy).cluster(k=2)
    assert read_results(run_copy) == other
    assert not [place for place in (run_copy / "kept").iterdir() if place.suffix]


def test_a_name_goes_where_two_thirds_of_a_cluster_had_it() -> None:
    before = np.repeat([0, 1, 2], [10, 9, 6])
    now = np.array([0] * 5 + [1] * 5 + [2] * 6 + [3] * 3 + [2] * 3 + [3] * 3)
    carried = carry_names({0: "cat", 1: "dog", 2: "-"}, before, now)
    assert carried == {0: ("cat", 1.0), 1: ("cat", 1.0), 2: ("dog", 6 / 9)}
    assert carry_names({1: "dog"}, before, np.zeros(25, int)) == {}


def test_names_follow_their_objects_and_the_rest_are_told(run_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(run_copy)
    labels = run.folder.read_table("clusters/clusters.parquet")["cluster"].to_numpy()
    run.name({0: "round", 1: "square"})
    caplog.set_level(logging.INFO, "fastcomus")
    now = run.cluster(k=4).labels
    expected = {one: name for one, (name, _) in carry_names({0: "round", 1: "square"}, labels, now).items()}
    assert dict(run.name().given) == expected and expected
    assert "of its objects had" in caplog.text
    run.cluster(method="kmeans", k=2)
    assert set(dict(run.name().given).values()) <= {"round", "square"}


def test_suggesting_changes_nothing(run_copy: Path) -> None:
    before = (run_copy / "run.json").read_bytes(), read_results(run_copy)
    Run(run_copy).suggest_k(n_neighbors=4, max_k=5)
    assert ((run_copy / "run.json").read_bytes(), read_results(run_copy)) == before


def test_a_folder_of_the_format_before_is_taken_over(run_copy: Path) -> None:
    state = Run(run_copy).folder.read_state()
    assert state is not None
    folder = Run(run_copy).folder
    folder.write_json("run.json", shelf_state(state, 2))
    run = Run(run_copy)
    run.cluster(k=2)
    assert run.folder.read_state()["format"] == 3 and len(run.history()) == 2


def shelf_state(state: dict, version: int) -> dict:
    from fastcomus.store.integrity import seal_json

    return seal_json({**{key: value for key, value in state.items() if key != "sha256"}, "format": version})


def test_objects_of_other_images_are_not_dropped_unasked(
    run_copy: Path, photographs: Photographs, tmp_path: Path
) -> None:
    before = tree_bytes(run_copy)
    other = make_photographs(tmp_path / "other", 3).images
    for name in ("00", "01", "02"):
        (other / f"{name}.png").rename(other / f"new-{name}.png")
    for command in (Run(run_copy).embed, Run(run_copy).run):
        with pytest.raises(InputError, match=r"has other images\. Choose another --run, add --replace"):
            command(other)
    assert tree_bytes(run_copy) == before
    next((run_copy / "objects").glob("part-*.parquet")).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"part-0000\d\.parquet cannot be read"):
        Run(run_copy).embed(other)
    assert Run(run_copy).embed(other, replace=True).images == 3


def test_photographs_that_were_moved_or_changed(
    run_copy: Path, photographs: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Path(shutil.copytree(photographs.images, tmp_path / "first"))
    Run(run_copy).embed(first)  # the same photographs elsewhere
    second = first.rename(tmp_path / "second")
    with pytest.raises(InputError, match="no longer there"):
        Run(run_copy).export("coco")
    with pytest.raises(InputError, match=r"--images must be the folder that holds the images now; there is no .*thrid"):
        Run(run_copy, images=tmp_path / "thrid")
    assert len(list(Run(run_copy, images=second).export("coco").rglob("*.png"))) == 24
    assert "photographs have changed" not in caplog.text
    shutil.copy(second / "01.png", second / "00.png")
    Run(run_copy, images=second).export("voc")
    assert "photographs have changed since their objects were found; run fastcomus embed" in caplog.text
    with pytest.raises(InputError, match="this one has none"):
        Run(tmp_path / "none", images=second)
