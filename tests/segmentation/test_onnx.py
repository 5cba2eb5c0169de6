"""The exported network under onnxruntime against torch's, at batches and sizes it was not exported with."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from places import ROOT
from planted import gaussian
from skimage import data
from tiny_segmenter import BACKBONE, make_segmenter
from typer.testing import CliRunner

from fastcomus import Run
from fastcomus.cli.commands import app
from fastcomus.errors import InputError
from fastcomus.segmentation.files import load_segmenter, write_segmenter
from fastcomus.segmentation.onnx import check_onnx
from fastcomus.segmentation.segmenter import Segmenter, enlarge_logits
from fastcomus.store.run_folder import RunFolder

CLASS_OF_LABEL = np.array([0, 1, 0, 1])  # of background and three clusters, two named alike and one dropped
PLAIN = {"k": "3", "backbone": BACKBONE, "output_stride": "16", "iteration": "1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clusters with names and a small random network (several labels in every image), exported."""
    root = tmp_path_factory.mktemp("exported")
    np.save(root / "rows.npy", gaussian(60, 3)[0])
    made = Run(root / "run", preset="offline")
    made.cluster(root / "rows.npy", k=3)
    write_segmenter(made.folder, 1, make_segmenter(3), "training")
    follows = (made.folder.read_manifest("clusters") or {})["fingerprint"]
    made.folder.finish("iteration-0", "masks", follows=follows)
    made.folder.finish("iteration-1", "one", follows="masks", k=3, backbone=BACKBONE, output_stride=16)
    made.name({0: "🐈 cat", 2: "🐈 cat", 1: "-"})
    line = ["export", "onnx", "--run", str(root / "run"), "--iteration", "1"]
    assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    return root / "run"


@pytest.fixture(scope="module")
def segmenter(run: Path) -> Segmenter:
    return load_segmenter(RunFolder(run), 1)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 129, 193), (3, 97, 65), (2, 257, 385)])
def test_labels_are_those_of_torch(batch: int, height: int, width: int, run: Path, segmenter: Segmenter) -> None:
    session = onnxruntime.InferenceSession(run / "segmenter.onnx")
    starts = [20 * i for i in range(batch)]
    images = np.stack([data.astronaut()[i : i + height, i : i + width].transpose(2, 0, 1) for i in starts])
    labels, logits = session.run(None, {"images": images})
    with torch.inference_mode():
        pixels = torch.from_numpy(images)
        coarse = segmenter(pixels)
        expected = enlarge_logits(coarse, pixels.shape).argmax(1).numpy()
    assert labels.dtype == np.uint8 and labels.shape == (batch, height, width) and len(np.unique(labels)) > 1
    assert np.abs(logits - coarse.numpy()).max() < 1e-4
    assert (labels == CLASS_OF_LABEL[expected]).mean() > 0.9999  # all but ties up to rounding


def test_the_example_writes_a_mask_of_the_photograph_s_size(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(data.astronaut()[:200, :310]).save(tmp_path / "a.jpg")
    arguments = ["", str(run / "segmenter.onnx"), str(tmp_path / "a.jpg"), str(tmp_path / "mask.png")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(ROOT / "examples" / "onnx_network.py"), run_name="__main__")
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert mask.shape == (200, 310) and set(np.unique(mask)) <= {0, 1, 2, 3}


def test_the_file_says_what_it_is_and_not_where_it_was_made(run: Path) -> None:
    session = onnxruntime.InferenceSession(run / "segmenter.onnx")
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told.pop("classes")) == ["background", "🐈 cat"] and told == PLAIN
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    content = (run / "segmenter.onnx").read_bytes()
    assert b".py" not in content and str(Path.cwd()).encode() not in content


@pytest.mark.slow
def test_without_names_labels_are_those_of_the_clusters(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Run(shutil.copytree(run, tmp_path / "run"), device="cpu")
    made.name({0: None, 1: None, 2: None})
    with caplog.at_level("INFO", logger="fastcomus"):
        file = made.export("onnx", iteration=1)
    told = [one.fields for one in caplog.records if hasattr(one, "fields")][-1]
    assert told["stage"] == "export-onnx" and told["bytes"] == file.stat().st_size
    session = onnxruntime.InferenceSession(file)
    image = data.astronaut()[None, :129, :193].transpose(0, 3, 1, 2)
    named, before = onnxruntime.InferenceSession(run / "segmenter.onnx").run(None, {"images": image})
    labels, logits = session.run(None, {"images": image})
    assert (CLASS_OF_LABEL[labels] == named).all() and len(np.unique(labels)) > 2 and labels.dtype == np.uint8
    assert np.abs(logits - before).max() < 1e-4
    assert session.get_modelmeta().custom_metadata_map == PLAIN


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxscript; run pip install onnx onnxscript\."):
        check_onnx()
