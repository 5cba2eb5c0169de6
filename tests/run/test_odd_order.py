"""Commands in an odd order and odd arguments: what is refused, and that nothing lands on other objects."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Photographs, tree_bytes
from PIL import Image
from typer.testing import CliRunner

from fastcomus import Clusters, InputError, Run
from fastcomus import cluster as cluster_rows
from fastcomus.cli.commands import app


def make_rows(folder: Path) -> Path:
    random = np.random.default_rng(0)
    centres = 5 * random.standard_normal((3, 8))
    rows = (centres[np.arange(90) % 3] + random.standard_normal((90, 8))).astype(np.float32)
    np.save(folder / "rows.npy", rows)
    return folder / "rows.npy"


def test_names_and_corrections_do_not_land_on_objects_found_later(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    run = Run(run_copy)
    run.correct(5, 1)
    run.embed(photographs.images, objects="several")
    assert len(run.objects()) != 24
    assert "the clusters are of the objects before; fastcomus cluster makes them anew" in caplog.text
    before = tree_bytes(run_copy / "clusters")
    for change in (lambda: run.name({0: "round"}), lambda: run.correct([5], 0)):
        with pytest.raises(InputError, match="are not of the objects that are there now; run fastcomus cluster"):
            change()
    assert tree_bytes(run_copy / "clusters") == before and not (run_copy / "names.toml").exists()


def test_rows_of_ones_own_in_the_run_folder_of_photographs_and_back(run_copy: Path, tmp_path: Path) -> None:
    run, rows = Run(run_copy), make_rows(tmp_path)
    run.name({0: "round"})
    run.correct([5], 1)
    before, labels = tree_bytes(run_copy / "iteration-1"), run.cluster().labels
    assert len(run.cluster(rows, k=3).labels) == 90
    assert run.name().given == ()
    run = Run(run_copy)
    assert (run.cluster(k=3).labels == labels).all()
    assert dict(run.name().given) == {0: "round"} and len(run.correct()) == 1
    assert tree_bytes(run_copy / "iteration-1") == before


def test_rows_get_no_photographs_and_no_advice_about_them(
    tmp_path: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    folder, rows = tmp_path / "run", make_rows(tmp_path)
    caplog.set_level(logging.INFO, "fastcomus")
    reply = CliRunner().invoke(app, ["cluster", "--embeddings", str(rows), "--k", "3", "--run", str(folder)])
    assert reply.exit_code == 0 and "next: " in caplog.text and "fastcomus train" not in caplog.text
    with pytest.raises(InputError, match="of embeddings without images; give those of new objects with --embeddings"):
        Run(folder).assign(photographs.images)
    assert not (folder / "assigned").exists()
    with pytest.raises(InputError, match=r"save the array by np\.save"):
        Run(folder).assign(embeddings=np.zeros((2, 8), np.float32))  # type: ignore[arg-type]


def test_photographs_that_are_gone_are_told_before_training(run_copy: Path, photographs: Photographs, tmp_path: Path):
    moved = Path(shutil.copytree(photographs.images, tmp_path / "images"))
    run = Run(run_copy, images=moved)
    run.cluster(k=2)
    (moved / "07.png").unlink()
    with pytest.raises(InputError, match=r"1 of 24 photographs are no longer in .*, such as 07\.png; put them"):
        run.train()
    assert run.folder.read_manifest("iteration-1") is None and not (run_copy / "iteration-1").exists()


def test_a_folder_without_the_photographs_is_not_remembered(run_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").mkdir()
    before = tree_bytes(run_copy)
    for command in (lambda run: run.train(epochs=3), lambda run: run.report()):
        with pytest.raises(InputError, match=r"none of the 24 photographs of this run lie in .*wrong, such as"):
            command(Run(run_copy, images=tmp_path / "wrong"))
    assert tree_bytes(run_copy) == before


def test_masks_of_two_networks_or_of_two_folders_in_one_are_told(
    run_copy: Path, photographs: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    one, other, target = (tmp_path / name for name in ("one", "other", "masks"))
    for folder, numbers in ((one, (0, 1, 2)), (other, (3, 4))):
        folder.mkdir()
        for number in numbers:
            shutil.copy(photographs.images / f"{number:02d}.png", folder / f"{number:02d}.png")
    shutil.copy(photographs.images / "05.png", other / "00.png")
    run = Run(run_copy)
    run.predict(one, target)
    run.predict(other, target)
    assert "such as 00.png.png (1 in all), make way for those of the same names" in caplog.text
    (other / "00.png").unlink()
    caplog.clear()
    run.predict(other, target)
    assert len(list(target.glob("*.png"))) == 5 and "earlier network" not in caplog.text
    run.cluster(k=2)
    run.train(epochs=1)
    run.predict(other, target)
    assert "predict: 3 masks in" in caplog.text and "of an earlier network and stay; delete them, or" in caplog.text
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"a\.txt is a file; choose a new folder for --output"):
        run.predict(other, tmp_path / "a.txt")


def test_numbers_are_numbers_whatever_clusters_are_called(run_copy: Path) -> None:
    run = Run(run_copy)
    run.name({0: "new", 2: "1"})
    assert run.correct([5], "1")["cluster"].to_pylist() == [1]
    with pytest.raises(InputError, match="'new' is a word of this command and the name of a cluster"):
        run.correct([6], "new")


def test_clusters_of_other_objects_come_back_with_a_word(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(run_copy)
    run.embed(photographs.images, objects="several")
    run.cluster(k=2)
    run.history(use=next(one.id for one in run.history() if one.trained))
    assert "history: these clusters are of objects that were found before" in caplog.text


ODD: dict[str, tuple[Any, str]] = {
    "names by text": (lambda run: run.name({"0": "dog"}), "called by their numbers, as in .*; got '0'"),
    "a mask": (lambda run: run.correct(np.arange(24) > 20, 0), r"not by a mask; np\.flatnonzero\(mask\)"),
    "a list of bool": (lambda run: run.correct([True, False], 0), "not by a mask"),
    "no object": (lambda run: run.correct(24, 0), "there is no object 24"),
    "the present clusters": (lambda run: run.history(use=run.history()[0].id), "that commands work with now"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_arguments_are_told_and_change_nothing(case: str, run_copy: Path) -> None:
    before = tree_bytes(run_copy)
    call, message = ODD[case]
    with pytest.raises(InputError, match=message):
        call(Run(run_copy))
    assert tree_bytes(run_copy) == before


def test_a_file_of_rows_that_is_not_there(tmp_path: Path) -> None:
    make_rows(tmp_path)
    for take in (lambda file: Run(tmp_path / "run").cluster(file), lambda file: Run(tmp_path / "run").suggest_k(file)):
        with pytest.raises(InputError, match=r"row\.npy do not exist; did you mean .*rows\.npy"):
            take(tmp_path / "row.npy")


def test_clusters_are_compared_as_objects(tmp_path: Path) -> None:
    found = cluster_rows(np.load(make_rows(tmp_path)), k=3)
    assert isinstance(found, Clusters) and found == found and found != cluster_rows(np.load(make_rows(tmp_path)), k=3)


def test_another_preset_says_what_it_does_away_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = make_rows(tmp_path)
    Run(tmp_path / "run", preset="offline").cluster(rows, k=3, filter=0.3)
    run = Run(tmp_path / "run", preset="auto")  # which is offline here: the same
    assert (run.config.cluster.k, run.config.cluster.filter) == (3, 0.3)
    run.cluster(rows)
    assert "starts anew" not in caplog.text
    Run(tmp_path / "run", preset="dino").cluster(rows, k=2)
    told = "preset dino starts anew; what was set with preset offline holds no more: cluster.filter"
    assert caplog.text.count(told) == 1
    Run(tmp_path / "run").cluster(rows)
    assert caplog.text.count(told) == 1


def test_photographs_without_an_object_lead_out_of_the_circle(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (64, 48), (40 * number, 90, 90)).save(tmp_path / f"{number}.png")
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    run.embed(tmp_path, saliency="background-prior")
    assert len(run.objects()) == 0
    for call in (run.report, run.train, run.cluster):
        with pytest.raises(InputError, match=r"no object was found in|there is no object to cluster"):
            call()
