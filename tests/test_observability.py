"""The log's lines of stages, as text and as JSON, and exit codes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from fastcomus.log_format import JsonLines
from fastcomus.pipeline import Run
from fastcomus.stage_report import TIMES, peak_memory_bytes, stage_seconds


def test_every_stage_tells_counts_rate_memory_and_device(run_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="fastcomus"):
        Run(run_copy, device="cpu").cluster()
    record = next(one for one in caplog.records if hasattr(one, "fields"))
    line = json.loads(JsonLines().format(record))
    assert line["stage"] == "cluster" and line["objects"] == 24 and line["clusters"] == 3 and line["device"] == "cpu"
    assert line["peak_memory_bytes"] > 10**8 and line["per_s"] > 0 and line["level"] == "info"
    text = record.getMessage()
    assert "24 objects (" in text and "3 clusters" in text and "GB" in text and text.endswith("cpu")


def test_seconds_of_stages_add_up_in_the_run_folder(run_copy: Path) -> None:
    run = Run(run_copy, device="cpu")
    before = stage_seconds(run.folder)
    assert {"embed", "cluster", "train"} <= before.keys() and all(seconds > 0 for seconds in before.values())
    run.cluster()
    assert stage_seconds(run.folder) == before  # it was up to date
    run.cluster(k=4)
    assert stage_seconds(run.folder)["cluster"] > before["cluster"]
    page = run.report().read_text(encoding="utf-8")
    assert all(f">time of {stage}<" in page for stage in ("embed", "cluster", "train"))
    (run_copy / TIMES).write_text("{")
    assert stage_seconds(run.folder) == {}
    run.cluster(k=3)
    assert stage_seconds(run.folder).keys() == {"cluster"}


def test_lines_of_json_keep_any_message() -> None:
    record = logging.makeLogRecord({"msg": 'a "b"\n%s', "args": ("ü\udce9",), "levelname": "WARNING"})
    told = json.loads(JsonLines().format(record))
    assert told["message"] == 'a "b"\nü\udce9' and told["level"] == "warning" and told["time"].endswith("Z")


def test_peak_memory_only_grows() -> None:
    before = peak_memory_bytes()
    kept = bytes(2 * 10**8)
    assert before is None or (peak_memory_bytes() or 0) >= before
    del kept
