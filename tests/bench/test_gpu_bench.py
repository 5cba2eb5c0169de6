"""bench/gpu on the CPU: its own code on little of everything, what it writes down, and how steps end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Photographs
from PIL import Image

from bench.gpu import __main__ as program
from bench.gpu import networks, suite
from bench.gpu.steps import Part, Step, list_faults, run_steps


def test_every_step_runs_on_little_and_is_not_done_twice(
    photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images, file = tmp_path / "images", tmp_path / "gpu-NAME.json"
    images.mkdir()
    for picture in sorted(photographs.images.iterdir())[:6]:
        Image.open(picture).save(images / f"{picture.stem}.jpg")
    given = ["--device", "cpu", "--small", "--repeats", "1", "--images", str(images), "--json", str(file)]
    program.main(given)
    (written,) = tmp_path.glob("gpu-*.json")
    found = json.loads(written.read_text())
    assert found["faults"] == [] and {"command", "hardware", "versions", "device"} <= found.keys()
    assert list(found["steps"]) == [step.name for step in program.STEPS]
    steps = {name: record["parts"] for name, record in found["steps"].items()}
    assert all(part["agrees"] for part in steps["parity"].values())
    assert min(steps["clusters"][f"{count} rows"]["recall"] for count in (500, 2100)) > 0.99
    assert steps["embed"]["embed, network"]["per_s"] > 0 and steps["train"]["train, small"]["bare loop"]["per_s"] > 0
    program.main(given)
    assert json.loads(written.read_text())["steps"] == found["steps"]
    capsys.readouterr()


def test_what_fails_is_written_down_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Each step in a process of its own: one fails in a part, one is lost, one takes too long."""

    def fail(_: object) -> Iterator[Part]:
        yield "good", lambda: {"agrees": False}
        yield "bad", lambda: 1 / 0
        yield "after", lambda: 3

    def lose(_: object) -> Iterator[Part]:
        yield "before", lambda: 1
        yield "lost", lambda: os._exit(7)

    def wait(_: object) -> Iterator[Part]:
        yield "before", lambda: 1
        yield "long", lambda: time.sleep(60)

    steps = [Step(one.__name__, limit, one) for one, limit in ((fail, 20), (lose, 20), (wait, 3))]
    records, saved = {}, []
    run_steps(steps, None, records, lambda: saved.append(json.dumps(records)), 60, True)
    assert records["fail"]["parts"] == {"good": {"agrees": False}, "after": 3}
    assert records["fail"]["failed"]["bad"].endswith("ZeroDivisionError: division by zero")
    assert records["lose"]["parts"] == records["wait"]["parts"] == {"before": 1}
    assert "exit code 7" in records["lose"]["status"] and records["lose"]["status"].endswith("at lost")
    assert "out of time" in records["wait"]["status"] and records["wait"]["status"].endswith("at long")
    assert any('"good"' in one and '"after"' not in one for one in saved)
    told = list_faults(records)
    assert "fail, good: does not agree" in told and len(told) == 5
    run_steps(steps, None, records, lambda: None, 0, True)
    assert records["wait"]["parts"] == {"before": 1}  # without time nothing is begun and nothing lost
    run_steps([Step("fail", 20, fail)], None, records, lambda: None, 60, False)  # in this process: what is missing
    assert records["fail"]["parts"] == {"good": {"agrees": False}, "after": 3} and "bad" in records["fail"]["failed"]


def test_reports_of_pytest_and_traces_of_the_profiler_are_read(tmp_path: Path) -> None:
    report, trace = tmp_path / "report.xml", tmp_path / "trace.json"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="b"/><testcase classname="a" name="c"><failure>why\nnot'
        '</failure></testcase><testcase classname="a" name="d"><skipped message="no"/></testcase>'
        "</testsuite></testsuites>"
    )
    expected = {"passed": 1, "failed": {"a::c": "why\nnot"}, "skipped": {"a::d": "no"}, "agrees": False}
    assert suite.read_report(report) == expected
    spans = [
        ("kernel", "one", 0, 100),
        ("kernel", "one", 50, 100),
        ("gpu_memcpy", "copy", 400, 50),
        ("cpu_op", "x", 0, 9),
    ]
    events = [{"cat": kind, "name": name, "ts": at, "dur": long} for kind, name, at, long in spans]
    trace.write_text(json.dumps({"traceEvents": events}))
    found = networks.summarise_trace(trace, 1e-3)
    assert found["busy_share"] == 0.2 and found["launches"] == 2
