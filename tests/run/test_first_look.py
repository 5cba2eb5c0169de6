"""The report that `run` writes before the folder has taught its network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import ENCODER, SALIENCY, TINY, Photographs

from fastcomus import Run
from fastcomus.errors import InputError
from fastcomus.run.first_look import write_first_look

SETTINGS: dict[str, Any] = {
    **TINY,
    "embed": {**TINY["embed"], **ENCODER},
    "train": {**TINY["train"], "iterations": 1, "epochs": 1},
    "saliency": {**SALIENCY, "refine_epochs": 0, "epochs": 1, "size": 65, "batch_size": 6, "least_images": 12},
}


def make_run(folder: Path, **saliency: Any) -> Run:
    settings = {**SETTINGS, "saliency": {**SETTINGS["saliency"], **saliency}}
    return Run(folder, preset="offline", device="cpu", settings=settings)


def read_page(run: Run) -> str:
    return (run.folder.path / "report/index.html").read_text(encoding="utf-8")


def test_the_first_look_is_a_whole_report_and_leaves_nothing_else(few: Photographs, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = run.workplace.list_images(few.images)
    with run.workplace.hold_folder():
        write_first_look(found, run.workplace)
    there = {file.name for file in run.folder.path.iterdir()} - {"lock", "lock.json"}
    assert {name for name in there if not name.startswith(".")} == {"report", "run.json"}
    page = read_page(run)
    assert "First look:" in page and "12 of 12 photographs, their objects found by background-prior" in page
    assert str(tmp_path) not in page and 'href="#map-part"' in page
    assert len(list((run.folder.path / "report").rglob("*.jpg"))) >= 12
    assert len(list((run.folder.path / "report").rglob("*-0.png"))) == 12  # masks of the clusters
    assert Run(tmp_path / "run").config == run.config  # another command may follow at once
    assert run.config.embed.saliency == "auto"

    stamp = (run.folder.path / "report/index.html").stat().st_mtime_ns
    write_first_look(found, run.workplace)
    assert (run.folder.path / "report/index.html").stat().st_mtime_ns == stamp


def test_a_run_writes_it_before_the_network_learns_and_replaces_it_after(
    few: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = make_run(tmp_path / "run")
    run.run(few.images, report=True)
    told = [record.getMessage() for record in caplog.records]
    order = [
        next(place for place, line in enumerate(told) if line.startswith(start))
        for start in ("first look: 12 of 12", "report: open", "train-saliency: training", "iteration-1: training")
    ]
    assert order == sorted(order)
    assert "First look:" not in read_page(run) and not list(tmp_path.rglob("*.unfinished"))

    plain = make_run(tmp_path / "plain")
    plain.embed(few.images)
    plain.cluster()
    for part in ("objects/part-00000.parquet", "clusters/clusters.parquet"):
        assert (plain.folder.path / part).read_bytes() == (run.folder.path / part).read_bytes(), part


@pytest.mark.parametrize("saliency", [{"least_images": 13}, {}], ids=["too few photographs", "the prior is asked for"])
def test_there_is_none_where_objects_come_soon(few: Photographs, tmp_path: Path, saliency: dict[str, Any]) -> None:
    run = make_run(tmp_path / "run", **saliency)
    if not saliency:
        run.configure({"embed": {"saliency": "background-prior"}})
    write_first_look(run.workplace.list_images(few.images), run.workplace)
    assert not (tmp_path / "run").exists()


def test_it_follows_other_settings_and_nothing_is_remembered_of_bad_ones(few: Photographs, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = run.workplace.list_images(few.images)
    run.configure({"cluster": {"k": 4}})
    write_first_look(found, run.workplace)
    before = read_page(run)
    run.configure({"cluster": {"k": 2}})
    write_first_look(found, run.workplace)
    assert read_page(run) != before

    bad = make_run(tmp_path / "bad")
    bad.configure({"embed": {"encoder": "efficientnet-liteO"}})
    with pytest.raises(InputError, match="efficientnet-liteO"):
        bad.run(few.images, report=True)
    assert not (tmp_path / "bad/run.json").exists() and not list((tmp_path / "bad").glob("*.unfinished"))


def test_more_clusters_than_it_has_objects_are_told_and_end_nothing(
    few: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = make_run(tmp_path / "run")
    run.configure({"cluster": {"k": 30}})
    write_first_look(run.workplace.list_images(few.images), run.workplace)
    assert "first look: none, since" in caplog.text and not (tmp_path / "run/report").exists()
    assert not list(tmp_path.rglob("*.unfinished"))
