"""What a run and its results say of themselves, in a script and in a notebook."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from conftest import Photographs

from fastcomus import Run


def test_a_run_says_what_it_holds(run_copy: Path, photographs: Photographs, tmp_path: Path) -> None:
    run = Run(run_copy)
    assert repr(run) == f"Run({str(run_copy)!r}: 24 objects, 3 clusters, 2 iterations trained)"
    run.name({0: "<b>odd</b>"})
    run.correct([1], "-")
    assert repr(run).endswith("3 clusters, 1 named, 1 objects corrected, 2 iterations trained)")
    shown = run._repr_html_()
    assert "&lt;b&gt;odd&lt;/b&gt;" in shown and "<b>odd" not in shown
    assert shown.count("data:image/jpeg;base64,") == 18 and "src=" in shown and "http" not in shown
    nothing = Run(tmp_path / "none", preset="offline")
    assert repr(nothing).endswith("none': empty)") and "empty" in nothing._repr_html_()
    clusters = run.cluster()
    assert repr(clusters).startswith("Clusters(24 objects in 3 clusters of 7 to 8")
    scores = run.evaluate(photographs.truth, photographs.classes, 0)
    assert "mIoU" in repr(scores) and scores._repr_html_().count("<tr>") == 6  # type: ignore[union-attr]


def test_verbose_runs_speak_where_nobody_set_up_logging(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own = logging.getLogger("fastcomus")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(own, "handlers", list[logging.Handler]())
    level = own.level
    try:
        Run(run_copy).cluster()
        assert "up to date" not in capfd.readouterr().err
        for _ in range(2):
            Run(run_copy, verbose=True).cluster()
        assert capfd.readouterr().err.count("up to date") == 2  # one handler, however many runs
    finally:
        own.setLevel(level)
