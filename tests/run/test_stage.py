"""The log's lines of stages, as text and as JSON, and exit codes."""

from __future__ import annotations

import json
import logging
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SALIENCY, Photographs

from fastcomus.cli.log import JsonLines
from fastcomus.progress import count
from fastcomus.run.run import Run
from fastcomus.run.stage import TIMES, get_peak_memory_bytes, read_stage_seconds

SHORT = {**SALIENCY, "priors": "background-prior", "refine_epochs": 0, "epochs": 2, "size": 33}

# What is done with a finished run and its photographs, and what the stage's line must count.
STAGES: dict[str, tuple[Callable[[Run, Photographs], Any], dict[str, int]]] = {
    "embed": (lambda run, given: run.embed(given.images), {"images": 24, "objects": 24, "skipped": 0}),
    "cluster": (lambda run, given: run.cluster(), {"objects": 24, "clusters": 3}),
    "suggest-k": (lambda run, given: run.suggest_k(), {"objects": 24}),
    "train": (lambda run, given: run.train(iterations=1, epochs=1), {"masks": 24, "iterations": 1}),
    "predict": (lambda run, given: run.predict(given.images), {"images": 24, "skipped": 0}),
    "assign": (lambda run, given: run.assign(given.images), {"objects": 24}),
    "evaluate": (lambda run, given: run.evaluate(given.truth), {"images": 24, "missing": 0}),
    "report": (lambda run, given: run.report(), {"objects": 24, "clusters": 3, "images": 24}),
    "export": (lambda run, given: run.export("coco"), {"images": 24, "classes": 3}),
    "train-saliency": (lambda run, given: run.train_saliency(given.images, **SHORT), {"images": 24, "epochs": 2}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_tells_counts_rate_memory_and_device(
    stage: str, run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    work, counts = STAGES[stage]
    with caplog.at_level("INFO", logger="fastcomus"):
        work(Run(run_copy, device="cpu"), photographs)
    record = [one for one in caplog.records if hasattr(one, "fields")][-1]
    line = json.loads(JsonLines().format(record))
    assert line["stage"] == stage and line["device"] == "cpu" and line["level"] == "info"
    assert line["peak_memory_bytes"] > 10**8 and line["per_s"] > 0
    assert {name: line[name] for name in counts} == counts
    text = record.getMessage()
    assert all(f"{number} {name}" in text for name, number in counts.items())
    assert "/s)" in text and "GB" in text and text.endswith("cpu")
    if stage == "train":  # one epoch of the images that passed the filter
        trained_on = (Run(run_copy, device="cpu").folder.read_manifest("iteration-1") or {})["images"]
        assert line["images"] == trained_on > 10


def test_a_stage_within_a_stage_counts_for_itself(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="fastcomus"):
        Run(run_copy, device="cpu").assign(photographs.images)
    lines = [one.fields for one in caplog.records if hasattr(one, "fields")]
    assert [line["stage"] for line in lines] == ["embed", "assign"]
    assert lines[0]["images"] == 24 and "images" not in lines[1]
    count(images=5)  # outside of any stage: nothing to add to


def test_seconds_of_stages_add_up_in_the_run_folder(run_copy: Path) -> None:
    run = Run(run_copy, device="cpu")
    before = read_stage_seconds(run.folder)
    assert {"embed", "cluster", "train"} <= before.keys() and all(seconds > 0 for seconds in before.values())
    run.cluster()
    assert read_stage_seconds(run.folder) == before  # it was up to date
    run.cluster(k=4)
    assert read_stage_seconds(run.folder)["cluster"] > before["cluster"]
    page = run.report().read_text(encoding="utf-8")
    assert all(f">time of {stage}<" in page for stage in ("embed", "cluster", "train"))
    (run_copy / TIMES).write_text("{")
    assert read_stage_seconds(run.folder) == {}
    run.cluster(k=3)
    assert read_stage_seconds(run.folder).keys() == {"cluster"}


def test_lines_of_json_keep_any_message() -> None:
    record = logging.makeLogRecord({"msg": 'a "b"\n%s', "args": ("ü\udce9",), "levelname": "WARNING"})
    told = json.loads(JsonLines().format(record))
    assert told["message"] == 'a "b"\nü\udce9' and told["level"] == "warning" and told["time"].endswith("Z")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_peak_memory_grows_with_what_is_held() -> None:
    """As far as the process had more before, and as pages of files are given up for it, that comes first."""
    Path("/proc/self/clear_refs").write_text("5")  # begins anew, as much as the tests before this one held
    step, held = 10**8, []
    before, now = get_peak_memory_bytes(), int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    assert before is not None and before >= 0.9 * now
    while (grown := get_peak_memory_bytes()) == before and len(held) * step < before - now + 20 * step:
        held.append(b"1" * step)
    assert before < grown < before + 2 * step
    held.clear()
    assert get_peak_memory_bytes() >= grown
