"""The tests that need a GPU, and those of torch's operations on it, by pytest in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bench.gpu.place import Place
from bench.gpu.steps import Part

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "FASTCOMUS_TEST_DEVICE"


def list_parts(place: Place) -> Iterator[Part]:
    if place.device.type != "cuda":
        return
    files = sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if VARIABLE in file.read_text())
    yield "tests of torch's operations", lambda: run_tests(place, "operations", *files)
    yield "tests marked gpu", lambda: run_tests(place, "gpu", "tests", "-m", "gpu")


def run_tests(place: Place, name: str, *given: str) -> dict[str, Any]:
    missing = [one for one in ("pytest", "hypothesis") if importlib.util.find_spec(one) is None]
    if missing or not (ROOT / "tests").is_dir():
        return {"skipped": f"missing: {', '.join(missing) or 'the folder tests'}"}
    report = place.scratch / f"tests-{name}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        f"--junitxml={report}",
        *given,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, VARIABLE: str(place.device)}, capture_output=True, text=True
    )
    if not report.exists():
        raise RuntimeError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    return read_report(report)


def read_report(report: Path) -> dict[str, Any]:
    """How many tests passed, and those that did not, by name, with the end of what pytest says of them."""
    passed, failed, skipped = 0, {}, {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        told = next((one for one in case if one.tag in ("failure", "error", "skipped")), None)
        if told is None:
            passed += 1
        elif told.tag == "skipped":
            skipped[name] = told.get("message", "")
        else:
            failed[name] = "\n".join((told.text or told.get("message", "")).strip().splitlines()[-12:])
    return {"passed": passed, "failed": failed, "skipped": skipped, "agrees": not failed}
