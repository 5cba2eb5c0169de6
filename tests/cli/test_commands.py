"""The command line: what it says, with which exit code, and that bad input leaves nothing behind."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import TINY, Photographs, tree_bytes
from typer.testing import CliRunner

from fastcomus.cli.commands import app
from fastcomus.config import STAGES
from fastcomus.config import Config as Settings
from fastcomus.errors import InputError
from fastcomus.networks.registry import SOURCES
from fastcomus.settings import to_toml, with_settings


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_every_setting_with_its_default(stage: str) -> None:
    shown = (
        CliRunner()
        .invoke(app, [{"saliency": "train-saliency"}.get(stage, stage), "--help-all"], env={"COLUMNS": "500"})
        .output
    )
    for field in fields(STAGES[stage]):
        line = next(line for line in shown.splitlines() if f"--{field.name.replace('_', '-')} " in line)
        assert field.metadata["help"].split(".")[0][:40] in line
        assert "(default:" in line


def test_the_two_commands_with_nothing_else_said(
    few: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And bad input between them, which changes nothing."""
    caplog.set_level(logging.INFO)
    (tmp_path / "images").symlink_to(few.images)
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["embed", "./images"], catch_exceptions=False)
    assert "preset auto: offline" in caplog.text and "human labels" in caplog.text
    before = tree_bytes(tmp_path / "comus-run")
    told = CliRunner().invoke(app, ["cluster", "--k", "25"]).exception
    assert str(told) == "k must lie in [2, N]; got k=25 with N=12 objects. Lower --k or add images."
    assert tree_bytes(tmp_path / "comus-run") == before
    CliRunner().invoke(app, ["cluster", "--k", "3", "--filter", "0.2"], catch_exceptions=False)
    assert len(list((tmp_path / "comus-run/iteration-0/masks").iterdir())) == 12


BAD = {
    "no images": (["embed", "{empty}", "--run", "{new}"], "no image"),
    "no folder": (["embed", "{empty}/absent", "--run", "{new}"], "absent"),
    "k below 2": (["cluster", "--run", "{run}", "--k", "1"], "k must be at least 2; got 1"),
    "kmeans without k": (["cluster", "--run", "{run}", "--method", "kmeans", "--k", "auto"], "give --k K"),
    "filter of 1": (["cluster", "--run", "{run}", "--filter", "1"], r"\[0, 1\).*got 1.0"),
    "filter below 0": (["cluster", "--run", "{run}", "--filter", "-0.1"], r"\[0, 1\).*got -0.1"),
    "another version": (["cluster", "--run", "{other}", "--k", "3"], "format 99"),
    "not a run folder": (["cluster", "--run", "{images}", "--k", "3"], "not a run folder"),
    "truncated shard": (["cluster", "--run", "{truncated}", "--k", "2"], "part-00000.parquet cannot be read"),
    "foreign truth": (["evaluate", "--run", "{run}", "--truth", "{foreign}"], "foreign"),
    "unknown encoder": (
        ["embed", "{images}", "--run", "{new}", "--encoder", "vit_smal_patch8_224"],
        "vit_small_patch8_224",
    ),
    "unknown saliency": (["embed", "{images}", "--run", "{new}", "--saliency", "background-pior"], "background-prior"),
    "unknown preset": (["embed", "{images}", "--run", "{new}", "--preset", "offlin"], "offline"),
    "no CUDA device": (["embed", "{images}", "--run", "{new}", "--device", "cuda:7"], "CUDA"),
    "nothing embedded": (["cluster", "--run", "{new}", "--k", "3"], "fastcomus embed"),
    "nothing trained": (["predict", "{images}", "--run", "{untrained}"], "fastcomus train"),
    "a list of nothing": (["predict", "{empty}/../list", "--run", "{run}"], "list names no image"),
    "nothing to export": (["export", "onnx", "--run", "{untrained}"], "fastcomus train"),
    "no such network": (["export", "onnx", "--run", "{run}", "--iteration", "0"], "one of 1, 2; got 0"),
    "no such iteration": (["evaluate", "--run", "{run}", "--truth", "{truth}", "--iteration", "7"], "0, 1, 2; got 7"),
    "NaN embeddings": (["cluster", "--run", "{new}", "--k", "2", "--embeddings", "{nan}"], "rows 3"),
    "bad settings": (["embed", "{images}", "--run", "{new}", "--config", "{toml}"], "crop_size"),
    "unwritable": (["embed", "{images}", "--run", "/dev/null/run"], "/dev/null/run"),
}


@pytest.mark.parametrize(("number", "told"), [("0", "0 is too few"), ("five", "neither a whole number nor auto")])
def test_a_number_of_clusters_that_is_none(number: str, told: str, run_copy: Path) -> None:
    before = tree_bytes(run_copy)
    result = CliRunner().invoke(app, ["cluster", "--run", str(run_copy), "--k", number])
    assert result.exit_code == 2 and told in result.output and tree_bytes(run_copy) == before


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, run_copy: Path, photographs: Photographs, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("empty", "new", "other", "truncated", "foreign", "untrained")}
    places["empty"].mkdir()
    arguments, expected = BAD[case]
    if "{other}" in arguments:
        shutil.copytree(run_copy, places["other"])
        (places["other"] / "run.json").write_text('{"format": 99}')
    if "{truncated}" in arguments:
        part = Path(shutil.copytree(run_copy, places["truncated"])) / "objects/part-00000.parquet"
        part.write_bytes(part.read_bytes()[:-100])
    if "{untrained}" in arguments:
        shutil.copytree(run_copy, places["untrained"], ignore=shutil.ignore_patterns("iteration-[12]"))
    places["foreign"].mkdir()
    shutil.copy(photographs.truth / "00.png", places["foreign"] / "someone-else.png")
    rows = np.ones((9, 4))
    rows[3, 1] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    (tmp_path / "toml").write_text("[embed]\ncrop_sise = 32\n")
    (tmp_path / "list").write_text("\n")
    known = {"run": run_copy, "images": photographs.images, "truth": photographs.truth, "nan": tmp_path / "nan.npy"}
    before = tree_bytes(tmp_path)
    line = [argument.format(**places, **known, toml=tmp_path / "toml") for argument in arguments]
    result = CliRunner().invoke(app, line)
    assert isinstance(result.exception, InputError), result.output
    sentence = str(result.exception)
    assert re.search(expected, sentence) and "\n" not in sentence
    assert tree_bytes(tmp_path) == before and not places["new"].exists()


def test_a_wrong_option_exits_with_2(tmp_path: Path) -> None:
    for line in (["cluster", "--k", "many"], ["cluster", "--kk", "3"], ["embed"]):
        assert CliRunner().invoke(app, line).exit_code == 2


def test_run_takes_settings_of_every_stage(few: Photographs, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(to_toml(with_settings(Settings(preset="offline"), TINY)))
    line = ["run", str(few.images), "--run", str(tmp_path / "run"), "--preset", "offline"]
    line += ["--config", str(settings), "--iterations", "1", "--epochs", "1", "--truth", str(few.truth)]
    line += ["--encoder", "efficientnet-lite0", "--backbone", "test_efficientnet", "--output-stride", "8"]
    result = CliRunner().invoke(app, line, catch_exceptions=False)
    assert result.exit_code == 0 and result.stdout.count("mIoU") == 2
    assert (tmp_path / "run/report/index.html").exists()


def test_doctor_names_what_auto_takes() -> None:
    result = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0
    assert "Preset auto takes offline" in result.stdout
    assert re.search(rf"faiss-cpu\W+{re.escape(version('faiss-cpu'))}", result.stdout)


def test_weights_list_shows_every_network_with_its_licence_and_whether_it_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCOMUS_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.save(timm.create_model("test_vit3").state_dict(), tmp_path / "vit.pth")
    added = CliRunner().invoke(app, ["weights", "add", "test_vit3", str(tmp_path / "vit.pth")], catch_exceptions=False)
    assert added.exit_code == 0 and str(tmp_path / "cache/test_vit3.pth") in added.stdout.replace("\n", "")
    shown = CliRunner().invoke(app, ["weights", "list"], env={"COLUMNS": "250"}, catch_exceptions=False).stdout
    lines = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│")}
    assert {*SOURCES, "test_vit3"} <= set(lines)
    cells = {name: [cell.strip() for cell in line.split("│")[1:-1]] for name, line in lines.items()}
    assert cells["basnet-unsupervised"][2:] == ["CC BY-NC 4.0: not for commercial use", "no", "no"]
    assert cells["efficientnet-lite0"][3:] == ["yes", "yes"]
    assert cells["test_vit3"][3:] == ["yes", "yes"]
    narrow = CliRunner().invoke(app, ["weights", "list"], env={"COLUMNS": "80"}, catch_exceptions=False).stdout
    assert "…" not in narrow


def test_weights_that_cannot_be_had_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    for line, told in (
        (["fetch", "basnet-unsupervised"], "CC BY-NC 4.0"),
        (["fetch", "basnet-unsupervisd"], "did you mean basnet-unsupervised"),
        (["fetch", "gcvit_tiny.in1k"], "forbids to fetch"),
        (["add", "found", str(tmp_path / "page.pth")], "no checkpoint"),
        (["add", "found", str(tmp_path / "absent.pth")], "there is no file"),
    ):
        error = CliRunner().invoke(app, ["weights", *line]).exception
        assert isinstance(error, InputError), error
        assert told in str(error)
        assert "\n" not in str(error)
