"""The report is there before training, read while others write, and written anew file by file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import TINY, Photographs

from fastcomus import InputError, Run
from fastcomus.clusters.shown_tables import TABLE
from fastcomus.run import iteration as training
from fastcomus.store.run_folder import RunFolder


def test_pages_scores_and_exports_are_made_while_another_process_writes(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fastcomus")
    run = Run(run_copy)
    with RunFolder(run_copy).writer.hold():
        assert run.report(samples=4).exists() and "settings are not remembered" in caplog.text
        assert run.evaluate(photographs.truth, iteration=0).images == 24
        assert run.export("coco").exists()
        assert run.predict(photographs.images).exists()
        with pytest.raises(InputError, match="in use by process"):
            run.name({0: "cat"})
        with RunFolder(run_copy / "report").writer.hold(), pytest.raises(InputError, match="report is in use by"):
            run.report()
    assert Run(run_copy).config.report.samples != 4


def test_clusters_are_named_while_another_process_trains(
    few: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names alone, and what is shown of them follows at the end of the training."""
    run = Run(tmp_path / "run", preset="offline", settings=TINY)

    def iterate(iteration: int, *rest: object) -> object:
        other = Run(run.folder.path)
        with pytest.raises(InputError, match="in use by process"):
            other.correct([0], "-")
        other.name({0: "cat"})
        assert other.name().get_name(0) == "cat"
        assert "cat" not in pq.read_table(run.folder.path / TABLE)["name"].to_pylist()
        with pytest.raises(InputError, match="in use by process"):
            other.cluster(k=2)
        return original(iteration, *rest)

    original = training.run_iteration
    monkeypatch.setattr(training, "run_iteration", iterate)
    run.run(few.images)
    shown = pq.read_table(run.folder.path / TABLE)
    assert {row["name"] for row in shown.to_pylist() if row["cluster"] == 0} == {"cat"}
    assert run.name({1: "dog"}).get_name(0) == "cat" and not list(run.folder.path.glob(".*.lock"))


def test_names_given_while_another_process_trained_are_shown_when_it_was_interrupted(
    few: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", preset="offline", settings=TINY)

    def interrupt(*_: object) -> None:
        Run(run.folder.path).name({0: "cat"})
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run_iteration", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.run(few.images)
    shown = pq.read_table(run.folder.path / TABLE)
    assert {row["name"] for row in shown.to_pylist() if row["cluster"] == 0} == {"cat"}
    assert "cat" in (run.folder.path / TABLE).with_suffix(".csv").read_text()


def test_the_report_is_there_before_training_and_again_after_each_iteration(
    few: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str, dict[str, int]]] = []
    folder = tmp_path / "run"

    def look(iteration: int) -> None:
        files = {str(one): one.stat().st_mtime_ns for one in (folder / "report").rglob("*.jpg")}
        seen.append((iteration, (folder / "report/data/version.js").read_text(), files))

    def iterate(iteration: int, *rest: object) -> object:
        look(iteration)
        (folder / "report/stale.txt").write_text("of an earlier report")
        return original(iteration, *rest)

    original = training.run_iteration
    monkeypatch.setattr(training, "run_iteration", iterate)
    Run(folder, preset="offline", settings=TINY).run(few.images, report=True)
    look(3)
    assert [one[0] for one in seen] == [1, 2, 3] and len({text for _, text, _ in seen}) == 3
    assert [f'"iterations":{count}' in text for count, (_, text, _) in enumerate(seen, 1)] == [True] * 3
    assert len(seen[0][2]) == 24 and seen[0][2] == seen[1][2] == seen[2][2]  # photographs are not drawn again
    assert len(list((folder / "report").rglob("*-2.png"))) == 12 and not (folder / "report/stale.txt").exists()
    Run(folder).report()  # with the seconds that all of training took
    drawn = {str(one): one.read_bytes() for one in (folder / "report").rglob("*.*") if one.is_file()}
    shutil.rmtree(folder / "report")
    Run(folder).report()
    assert {str(one): one.read_bytes() for one in (folder / "report").rglob("*.*") if one.is_file()} == drawn
