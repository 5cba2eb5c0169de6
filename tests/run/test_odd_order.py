"""Commands in an odd order and odd arguments: what is refused, and that nothing lands on other objects."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Photographs, tree_bytes
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
