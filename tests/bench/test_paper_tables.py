"""The paper's tables on a small made data set: every one gives its rows, and says what is not here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, make_photographs
from places import ROOT
from scipy.stats import spearmanr

from fastcomus import Run
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.settings import get_preset_config, to_toml, with_settings

pytestmark = pytest.mark.slow

# Several commands in one process, which imports everything once; prints how each ended and what it said.
PROGRAM = """
import contextlib, io, json, runpy, sys
told = []
for line in json.loads(sys.argv[1]):
    sys.argv, said, code = ["bench.paper", *line], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_module("bench.paper", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
    told.append([code, said.getvalue()])
print(json.dumps(told))
"""
# Training last: the main results go on from the networks of the ablation, and other tables show them where they are.
TABLES = ("8", "10", "12", "9", "5", "1", "4")
FIGURES = ("8", "9", "3", "5", "10")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` as `--data` takes it, 24 photographs of which 21 are listed; `folders`, the same by class; settings."""
    root = tmp_path_factory.mktemp("paper")
    made = make_photographs(root / "made", 24)
    for index, path in enumerate(sorted(made.images.iterdir())):
        folder = root / "folders" / ("circle", "square", "stripes")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    data = root / "data"
    data.mkdir()
    made.images.rename(data / "JPEGImages")
    made.truth.rename(data / "SegmentationClass")
    made.classes.rename(data / "classes.txt")
    (data / "objects.txt").write_text("\n".join(f"{index:02d}" for index in range(21)))
    # The network, as it labels any images: their own masks and clusters have no say.
    alone = {**TINY, "train": {**TINY["train"], "mask_weight": 0.0, "cluster_weight": 0.0}}
    (root / "settings.toml").write_text(to_toml(with_settings(get_preset_config("offline"), alone)))
    return root


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, tuple[int, str]]:
    """How each command ended and what it said, by the name of its JSON: every table and figure that needs no other
    weights, one seed each, and commands that lack something."""
    names = [*(f"figure{number}" for number in FIGURES[:-1]), *(f"table{number}" for number in TABLES), "figure10"]
    usual = ["--config", str(place / "settings.toml"), "--device", "cpu"]
    data, folders = ["--data", str(place / "data")], ["--data", f"folders:{place / 'folders'}"]
    work, labels = ["--work", str(place / "work")], ["--work", str(place / "labels")]
    lines = {name: [name, *work, *usual, "--seeds", "1", *data] for name in names}
    lines["table4"] += ["--work", str(place / "moved"), "--trained", str(place / "work/full-0")]
    lines |= {
        "labels": ["table12", *labels, *usual, *folders],
        "needs masks": ["table8", *labels, *usual, *folders],
        "no weights": ["table7", *labels, *usual, *data],
        "no network": ["table4", *labels, *usual, *data],
        "no folder": ["table8", *labels, *usual, "--data", str(place / "absent")],
    }
    given = [[*line, "--json", str(place / f"{name}.json")] for name, line in lines.items()]
    started = [sys.executable, "-c", PROGRAM, json.dumps([*given, ["table8"]])]
    reply = subprocess.run(started, capture_output=True, text=True, cwd=ROOT)
    assert reply.returncode == 0, reply.stderr
    return dict(zip([*lines, "no data"], json.loads(reply.stdout.splitlines()[-1]), strict=True))


@pytest.fixture(scope="module")
def results(place: Path, told: dict[str, tuple[int, str]]) -> dict[str, dict[str, Any]]:
    """What the tables and figures hold."""
    made = {name: end for name, end in told.items() if name.startswith(("table", "figure")) or name == "labels"}
    assert not any(code for code, _ in made.values()), made
    return {name: json.loads((place / f"{name}.json").read_text()) for name in made}


def fractions(result: dict[str, Any], column: str) -> list[float]:
    values = [row[column] for row in result["rows"]]
    return [float(np.mean(value)) for value in values if isinstance(value, float | list)]


def test_clusters_in_memory_score_as_those_of_a_run_folder(
    results: dict[str, dict[str, Any]], place: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(place / "work/objects-run", tmp_path / "run"), device="cpu")
    run.cluster()
    data = place / "data"
    stored = run.evaluate(f"{data / 'SegmentationClass'}@{data / 'objects.txt'}", data / "classes.txt", 0)
    assert isinstance(stored, Evaluation) and stored.images == 21 and stored.hungarian.miou > 0.8
    assert fractions(results["table8"], "mIoU, majority")[0] == stored.majority.miou


def test_tables_of_clusters(results: dict[str, dict[str, Any]]) -> None:
    over, sensitivity, clusterings = results["table8"], results["table10"], results["figure8"]
    assert over["command"].startswith("python -m bench.paper table8 --work")
    assert [row["clusters"] for row in over["rows"]] == ["3", "4", "8"]
    assert [row["setting"] for row in sensitivity["rows"]].count("n_neighbors") == 4
    for result, column in ((over, "mIoU, majority"), (sensitivity, "mIoU"), (clusterings, "mIoU")):
        assert all(0.3 < value <= 1 for value in fractions(result, column)) and fractions(result, column)
    kept = [int(row["objects kept"]) for row in clusterings["rows"] if row["clustering"] == "of the preset"]
    assert kept[0] == 21 and kept == sorted(kept, reverse=True)


def test_rank_correlation_of_iou_and_size(results: dict[str, dict[str, Any]]) -> None:
    result = results["figure9"]
    sizes, ious = (fractions(result, column) for column in ("mean share of the image", "IoU"))
    assert sizes == sorted(sizes, reverse=True) and 0.05 < sizes[-1] < sizes[0] < 0.4
    assert f"rho {spearmanr(sizes, ious).statistic:.3f} " in result["notes"][0]


def test_pictures(results: dict[str, dict[str, Any]], place: Path) -> None:
    assert sum(int(row["objects"]) for row in results["figure5"]["rows"]) == 21
    assert min(fractions(results["figure5"], "share of it")) == 1.0  # the kinds are easy to tell apart
    assert (place / "work/tsne.png").exists() and (place / "work/cluster-samples.jpg").exists()


def test_encoders_that_are_not_here_are_named(results: dict[str, dict[str, Any]]) -> None:
    result = results["table12"]
    assert {row["encoder"] for row in result["rows"]} == {"efficientnet-lite0"}
    assert any(note.startswith("vit_small_patch8_224.dino: ") for note in result["notes"])
    assert fractions(result, "accuracy") == [1.0] * len(result["rows"])


def test_tables_with_training(results: dict[str, dict[str, Any]]) -> None:
    ablation, main = results["table5"], results["table1"]
    assert [row["step"] for row in ablation["rows"]][:2] == ["k-means", "spectral"]
    assert "order" in ablation["notes"][0]
    assert fractions(main, "mIoU")[1:] == fractions(ablation, "mIoU")[3:]
    assert fractions(main, "mIoU")[0] == fractions(ablation, "mIoU")[1]
    classes = results["figure10"]
    assert "iteration 2" in classes["title"]
    assert sorted(row["class"] for row in classes["rows"]) == ["background", "circle", "square", "stripes"]
    assert fractions(results["table4"], "mIoU")[0] == fractions(main, "mIoU")[2]  # the same network, the same images


def test_the_presets_are_the_papers(results: dict[str, dict[str, Any]]) -> None:
    assert results["table9"]["notes"] == ["All are the paper's."]


def test_labels_of_images_serve_where_no_masks_are_needed(results: dict[str, dict[str, Any]]) -> None:
    assert fractions(results["labels"], "accuracy")[0] == 1.0


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("needs masks", "this needs masks"),
        ("no weights", "basnet-unsupervised"),
        ("no network", "needs --trained"),
        ("no folder", "absent does not exist"),
        ("no data", "needs --data"),
    ],
)
def test_what_is_missing_is_told(name: str, sign: str, told: dict[str, tuple[int, str]]) -> None:
    code, said = told[name]
    assert code == 2 and sign in said
