"""Help in two lengths, how much is said, JSON for other programs, progress where there is no terminal."""

from __future__ import annotations

import io
import json
import logging
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import Photographs, tree_bytes
from typer.testing import CliRunner

from fastcomus import __version__, progress
from fastcomus.cli.commands import app
from fastcomus.cli.help import ORDER
from fastcomus.cli.log import StderrHandler
from fastcomus.config import STAGES


def say(*arguments: object, columns: int = 80) -> str:
    reply = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": str(columns)})
    assert reply.exit_code == 0, reply.output
    return reply.output


def test_the_version_and_the_commands_in_the_order_of_use() -> None:
    assert say("--version") == f"fastcomus {__version__}\n"
    lines = [line.split()[1] for line in say("--help").splitlines() if line.startswith("│ ") and line[2].isalpha()]
    assert [name for name in lines if name in ORDER] == list(ORDER)


def test_help_shows_some_ten_options_whole_and_help_all_every_one() -> None:
    short = say("run", "--help")
    shown = [line.split()[1] for line in short.splitlines() if line.startswith("│ --")]
    assert 8 <= len(shown) <= 14 and {"--k", "--run", "--preset", "--epochs"} <= set(shown) and "…" not in short
    assert "more options: fastcomus run --help-all" in short
    whole = say("run", "--help-all", columns=200)
    for stage in ("embed", "cluster", "train", "predict"):
        assert all(f"--{field.name.replace('_', '-')} " in whole for field in fields(STAGES[stage]))
    assert say("run", "--help") == short  # nothing stays hidden or shown
    assert "--help-all" not in say("history", "--help").split("more options")[-1].replace("--help-all  ", "")


def test_json_for_other_programs(run_copy: Path) -> None:
    named = json.loads(say("name", '1=it\'s "odd"', "2=-", "--json", "--run", run_copy))
    assert [(one["name"], one["label"]) for one in named] == [(None, 1), ('it\'s "odd"', 2), ("-", 0)]
    assert sum(one["objects"] for one in named) == 24
    (present,) = json.loads(say("history", "--json", "--run", run_copy))
    assert present["is_present"] and present["k"] == 3 and present["names"] == 2
    machine = json.loads(say("doctor", "--json"))
    assert machine["devices"]["cpu"]["cores"] and machine["packages"]["torch"] and machine["preset"]["encoder"]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    run_copy: Path, photographs: Photographs, tmp_path: Path
) -> None:
    def plan(folder: Path, *options: object) -> dict[str, list[str]]:
        text = say("run", photographs.images, "--run", folder, "--dry-run", *options, columns=160)
        rows = ([cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line)
        return {row[0]: row[1:] for row in rows}

    before = tree_bytes(run_copy)
    there = plan(run_copy)
    assert [there[stage][0] for stage in ("embed", "cluster", "train")] == ["nothing"] * 3
    assert there["embed"][1] == "24 of 24 photographs" and there["train"][1].startswith("2 iterations")
    other = plan(run_copy, "--k", 2, "--iterations", 1)
    assert other["embed"][0] == "nothing" and other["cluster"][0] == "k = 2"
    assert other["train"][0] == "iterations 1, 2 epochs"
    new = plan(tmp_path / "new", "--preset", "offline", "--saliency", "background-prior")
    assert new["embed"][0] == "24 photographs" and new["cluster"][0] == "k found by itself" and new["train"][2]
    (tmp_path / "few.toml").write_text("[saliency]\nleast_images = 20\n")
    taught = plan(tmp_path / "new", "--preset", "offline", "--config", tmp_path / "few.toml")
    assert taught["embed"][0] == "24 photographs, of which 24 first teach a network"
    assert tree_bytes(run_copy) == before and not (tmp_path / "new").exists()


def test_quiet_verbose_and_what_comes_next(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the handler of the command line, which writes to what standard error is at the time."""
    root, own = logging.getLogger(), logging.getLogger("fastcomus")
    handler = StderrHandler()
    monkeypatch.setattr(root, "handlers", [handler])
    levels = root.level, own.level

    def hear(*options: str) -> str:
        own.setLevel(logging.INFO)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream := io.StringIO())
            patch.setattr(progress, "_silent", False)
            reply = CliRunner().invoke(app, ["cluster", "--run", str(run_copy), *options])
            assert reply.exit_code == 0, reply.output
            return stream.getvalue() + reply.output

    try:
        assert "cluster: up to date" in hear() and "next: fastcomus view --run" in hear()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "uvicorn", None)  # not installed
            assert "next: fastcomus report --run" in hear()
        assert hear("-q") == ""
        assert "INFO fastcomus: cluster: up to date" in hear("-v")
        assert "not both" in str(CliRunner().invoke(app, ["cluster", "-q", "-v"]).exception)
    finally:
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def test_progress_in_a_log_file_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # no terminal
    monkeypatch.setattr(progress, "FIRST_LINE_S", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level("INFO", "fastcomus"), progress.show_progress("masks", 6, "images", done=1) as advance:
        for _ in range(5):
            advance(1)
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(",")[0] for line in told] == [f"masks: {done} of 6 images" for done in (2, 3, 4, 5)]
    assert all("/s, about" in line and line.endswith(" s left") for line in told)
    caplog.clear()
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "FIRST_LINE_S", 10.0)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 60.0)
    with caplog.at_level("INFO", "fastcomus"), progress.show_progress("masks", 1_000, "images") as advance:
        for now[0] in range(101, 301):
            advance(1)
    told = [record.getMessage() for record in caplog.records]
    assert [int(line.split()[1]) for line in told] == [10, 20, 40, 80, 140, 200]  # seconds, an image each
    assert told[0] == "masks: 10 of 1000 images, 1.0/s, about 16 min left"
    caplog.clear()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.show_progress("masks", 6, "images") as advance:
        advance(3)
    assert not caplog.records
