"""The programs in examples/, run as they stand there on small made data."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ENCODER, TINY, Photographs
from PIL import Image
from places import ROOT, TESTS

from fastcomus import Run
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.settings import with_settings

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def prepare_run(folder: Path, **embed: object) -> Path:
    """A run folder that remembers small settings."""
    run = Run(folder, preset="offline", settings={**TINY, "embed": {**TINY["embed"], **ENCODER, **embed}})
    run.workplace.remember(with_settings(run.config, {"train": {"epochs": 1}}))
    return folder


def test_every_example_is_listed_and_run_here() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = "".join(file.read_text(encoding="utf-8") for file in (Path(__file__), TESTS / "segmentation/test_onnx.py"))
    for file in EXAMPLES.glob("*.py"):
        assert f"({file.name})" in listed and f'"{file.name}"' in tests


def test_named_clusters(
    few: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("named_clusters.py", few.images, prepare_run(tmp_path / "run"), monkeypatch=monkeypatch)
    assert (tmp_path / "run/report/index.html").is_file() and (tmp_path / "run/names.toml").is_file()
    assert "count" in capsys.readouterr().out


def test_own_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = np.repeat(np.eye(3) * 5, [30, 20, 10], axis=0)
    np.save(tmp_path / "rows.npy", kinds + np.random.default_rng(0).normal(0, 0.1, kinds.shape))
    run_example("own_embeddings.py", tmp_path / "rows.npy", 3, monkeypatch=monkeypatch)
    told = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in told] == [f"cluster {i}: {n} rows" for i, n in enumerate((30, 20, 10))]


def test_own_boxes(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, annotations = [], []
    for number, file in enumerate(sorted(photographs.images.iterdir())):
        rows, columns = np.nonzero(read_mask(photographs.truth / file.name))
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        images.append({"id": number, "file_name": file.name, "width": 96, "height": 80})
        annotations.append({"id": number, "image_id": number, "bbox": [int(side) for side in box]})
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    folder = prepare_run(tmp_path / "run")
    run_example("own_boxes.py", photographs.images, tmp_path / "boxes.json", folder, monkeypatch=monkeypatch)
    assert Path(capsys.readouterr().out.strip().splitlines()[-1]).name == "iteration-1"
    labels = Run(folder).cluster().labels  # of the images in order, whose kinds repeat: colours tell them apart
    assert len({(number % 3, label) for number, label in enumerate(labels.tolist())}) == 3


def test_annotation_tool(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example("annotation_tool.py", run_copy, tmp_path / "out", monkeypatch=monkeypatch)
    assert capsys.readouterr().out.startswith("24 tasks with ") and (tmp_path / "out/label-config.xml").is_file()


def test_video_frames(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.bit_rate = 96, 80, 2_000_000
        for file in sorted(photographs.images.iterdir()):
            for _ in range(2):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(Image.open(file)))))
        container.mux(stream.encode())
    folder = prepare_run(tmp_path / "run")
    run_example("video_frames.py", tmp_path / "clip.mp4", 0.2, folder, monkeypatch=monkeypatch)
    told = capsys.readouterr().out
    assert told.startswith("24 frames") and "in 3 clusters" in told


def test_two_encoders(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("test_efficientnet", "efficientnet-lite0")
    for name in names:
        prepare_run(tmp_path / name, encoder_weights=ENCODER["encoder_weights"] if name == names[0] else "")
    run_example("two_encoders.py", photographs.images, tmp_path, *names, photographs.truth, monkeypatch=monkeypatch)
    told = capsys.readouterr().out
    assert (
        all(re.search(rf"^{name}: mIoU [01]\.\d", told, re.MULTILINE) for name in names)
        and "adjusted Rand index of the two: " in told
    )
