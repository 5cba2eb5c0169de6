"""The paper's tables on a small made data set: every one gives its rows, and says what is not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Photographs, make_photographs
from places import ROOT
from scipy.stats import spearmanr

from bench.paper import (
    figure3_tsne,
    figure5_cluster_samples,
    figure8_clusterings,
    figure9_object_size,
    figure10_classes,
    main_results,
    table4_transfer,
    table5_ablation,
    table7_supervised_saliency,
    table8_over_clustering,
    table9_11_presets,
    table10_sensitivity,
    table12_encoders,
)
from bench.paper.__main__ import MODULES, find_module
from bench.paper.experiment import Experiment
from bench.paper.result import Result, note_order
from fastcomus import InputError
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.settings import get_preset_config, to_toml, with_settings

WIDE = {**TINY, "cluster": {"n_neighbors": 6}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of `--data DIR`: 24 photographs, of which 21 are listed."""
    root = tmp_path_factory.mktemp("data")
    made = make_photographs(root / "made", 24)
    made.images.rename(root / "JPEGImages")
    made.truth.rename(root / "SegmentationClass")
    made.classes.rename(root / "classes.txt")
    (root / "objects.txt").write_text("\n".join(f"{index:02d}" for index in range(21)))
    return root


@pytest.fixture(scope="module")
def experiment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    work = tmp_path_factory.mktemp("work")
    return Experiment(str(data), work, preset="offline", seeds=2, device="cpu", settings=TINY)


def fractions(result: Result, column: str) -> list[float]:
    values = [row[column] for row in result.rows]
    return [float(np.mean(value)) for value in values if isinstance(value, float | list)]


def test_clusters_in_memory_score_as_those_of_a_run_folder(experiment: Experiment, data: Path) -> None:
    run = experiment.run("scored")
    in_memory = experiment.score_clusters(run, experiment.cluster_run(run, 0))
    run.cluster()
    stored = run.evaluate(f"{data / 'SegmentationClass'}@{data / 'objects.txt'}", data / "classes.txt", 0)
    assert isinstance(stored, Evaluation) and stored.images == 21
    assert in_memory == stored == experiment.score_iteration(run, 0)
    assert stored.hungarian.miou > 0.8


def test_tables_of_clusters(experiment: Experiment) -> None:
    over = table8_over_clustering.measure(experiment)
    assert [row["clusters"] for row in over.rows] == ["3", "4", "8"]
    sensitivity = table10_sensitivity.measure(
        Experiment(experiment.data, experiment.work, preset="offline", seeds=1, device="cpu", settings=WIDE)
    )
    assert [row["setting"] for row in sensitivity.rows].count("n_neighbors") == 4
    classes = figure10_classes.measure(experiment)
    assert sorted(str(row["class"]) for row in classes.rows) == ["background", "circle", "square", "stripes"]
    clusterings = figure8_clusterings.measure(experiment)
    for result, column in ((over, "mIoU, majority"), (sensitivity, "mIoU"), (classes, "IoU"), (clusterings, "mIoU")):
        assert all(0.3 < value <= 1 for value in fractions(result, column)) and fractions(result, column)
    kept = [row["objects kept"] for row in clusterings.rows if row["clustering"] == "of the preset"]
    assert kept[0] == "21" and [int(str(n)) for n in kept] == sorted((int(str(n)) for n in kept), reverse=True)


def test_rank_correlation_of_iou_and_size(experiment: Experiment) -> None:
    result = figure9_object_size.measure(experiment)
    sizes, ious = (fractions(result, column) for column in ("mean share of the image", "IoU"))
    assert sizes == sorted(sizes, reverse=True) and 0.05 < sizes[-1] < sizes[0] < 0.4
    assert f"rho {spearmanr(sizes, ious).statistic:.3f} " in result.notes[0]


def test_pictures(experiment: Experiment) -> None:
    figure3_tsne.measure(experiment)
    samples = figure5_cluster_samples.measure(experiment)
    assert sum(int(str(row["objects"])) for row in samples.rows) == 21
    assert min(fractions(samples, "share of it")) == 1.0  # the kinds are easy to tell apart
    assert (experiment.work / "tsne.png").exists() and (experiment.work / "cluster-samples.jpg").exists()


def test_encoders_that_are_not_here_are_named(experiment: Experiment) -> None:
    result = table12_encoders.measure(experiment)
    assert {row["encoder"] for row in result.rows} == {"efficientnet-lite0"}
    assert any(note.startswith("vit_small_patch8_224.dino: ") for note in result.notes)
    assert fractions(result, "accuracy") == [1.0] * len(result.rows)


def test_tables_with_training(experiment: Experiment) -> None:
    """One seed; the main results go on from the networks of the ablation."""
    alone = {**TINY, "train": {**TINY["train"], "mask_weight": 0.0}}  # the network, as it labels any images
    one = Experiment(experiment.data, experiment.work, preset="offline", device="cpu", settings=alone)
    ablation = table5_ablation.measure(one)
    assert [row["step"] for row in ablation.rows][:2] == ["k-means", "spectral"]
    assert "order" in ablation.notes[0]
    main = main_results.measure(one)
    assert fractions(main, "mIoU")[1:] == fractions(ablation, "mIoU")[3:]
    assert fractions(main, "mIoU")[0] == fractions(ablation, "mIoU")[1]
    assert "iteration 2" in figure10_classes.measure(one).title
    moved = Experiment(one.data, one.work / "moved", device="cpu", preset="offline", trained=one.work / "full-0")
    transferred = table4_transfer.measure(moved)
    assert fractions(transferred, "mIoU")[0] == fractions(main, "mIoU")[2]  # the same network on the same images


def test_what_is_missing_is_told(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="basnet-unsupervised"):
        table7_supervised_saliency.measure(experiment)
    with pytest.raises(InputError, match="needs --trained"):
        table4_transfer.measure(experiment)
    with pytest.raises(InputError, match="needs --data"):
        table8_over_clustering.measure(Experiment("", tmp_path))


def test_the_presets_are_the_papers(tmp_path: Path) -> None:
    result = table9_11_presets.measure(Experiment("", tmp_path))
    assert result.notes == ["All are the paper's."]


def test_the_order_of_an_ablation() -> None:
    assert note_order("abc", [0.1, 0.2, 0.3]) == "The paper's order holds."
    told = note_order(("one", "two", "three"), [0.1, 0.3, 0.3])
    assert told == "The paper's order does not hold: three (30.0) is not above two (30.0)."


def test_a_result_is_shown_in_percent_with_its_spread() -> None:
    result = Result("title", ("what", "value"))
    for cell in (0.5, [0.4, 0.6], [0.25], float("nan"), 7, "text"):
        result.add("row", cell)
    cells = list(result.build_table().columns[1].cells)
    assert cells == ["50.0", "50.0 +- 10.0", "25.0", "-", "7", "text"]
    assert json.dumps(result.to_json(), allow_nan=False)


def test_the_command(data: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(to_toml(with_settings(get_preset_config("offline"), TINY)))
    line = [sys.executable, "-m", "bench.paper", "table8", "--data", str(data), "--work", str(tmp_path / "work")]
    line += ["--config", str(settings), "--seeds", "1", "--json", str(tmp_path / "table.json")]
    reply = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ))
    assert reply.returncode == 0, reply.stderr
    stored = json.loads((tmp_path / "table.json").read_text())
    assert stored["command"].startswith("python -m bench.paper table8 --data") and len(stored["rows"]) == 3
    assert "Over-clustering 3 classes" in reply.stdout
    line[3:6] = ["table8", "--data", str(tmp_path / "absent")]
    reply = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert reply.returncode == 2 and "absent is not a folder" in reply.stderr


@pytest.mark.parametrize("name", MODULES)
def test_every_table_says_what_it_needs(name: str) -> None:
    module = find_module(name)
    assert module.NEEDS.endswith(".") and module.SEEDS >= 1 and callable(module.measure)


def test_labels_of_images_serve_where_no_masks_are_needed(photographs: Photographs, tmp_path: Path) -> None:
    for index, path in enumerate(sorted(photographs.images.iterdir())):
        folder = tmp_path / "folders" / ("circle", "square", "stripes")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).symlink_to(path)
    settings = {**TINY, "cluster": {"n_neighbors": 6}}
    experiment = Experiment(f"folders:{tmp_path / 'folders'}", tmp_path / "work", device="cpu", settings=settings)
    assert experiment.k == 3 and set(experiment.find_object_classes(experiment.objects)) == {0, 1, 2}
    assert fractions(table12_encoders.measure(experiment), "accuracy")[0] == 1.0
    with pytest.raises(InputError, match="this needs masks"):
        table8_over_clustering.measure(experiment)
