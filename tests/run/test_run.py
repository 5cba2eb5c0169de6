"""The whole pipeline on a small folder: results, what is up to date, the same bytes whatever happens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TINY, Photographs, make_photographs, tree_bytes
from PIL import Image

import fastcomus
from fastcomus import InputError, Run
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.run import iteration as round_of_training
from fastcomus.run.contents import list_iterations, read_skipped
from fastcomus.segmentation.training import SelfTraining


def test_every_image_gets_masks_of_its_own_size(finished_run: Path, photographs: Photographs) -> None:
    for iteration in (0, 1, 2):
        for image in photographs.images.iterdir():
            with Image.open(finished_run / f"iteration-{iteration}/masks/{image.name}.png") as mask:
                assert mask.size == (96, 80) and mask.mode == "P"


def test_clusters_are_the_planted_kinds_and_in_the_order_of_the_objects(finished_run: Path) -> None:
    objects = Run(finished_run).objects()
    clusters = pq.read_table(finished_run / "clusters/clusters.parquet")
    assert clusters["image"].to_pylist() == objects["image"].to_pylist()
    kinds = np.array([int(name[:2]) % 3 for name in objects["image"].to_pylist()])
    labels = clusters["cluster"].to_numpy()
    assert len({(kind, label) for kind, label in zip(kinds, labels, strict=True)}) == 3
    core = clusters["is_core"].to_numpy(zero_copy_only=False)
    assert [int((~core[labels == c]).sum()) for c in range(3)] == [int(0.2 * (labels == c).sum()) for c in range(3)]


def test_iteration_zero_masks_are_object_masks_with_their_cluster(finished_run: Path, photographs: Photographs) -> None:
    clusters = pq.read_table(finished_run / "clusters/clusters.parquet").to_pylist()
    for row in clusters:
        mask = read_mask(finished_run / "iteration-0/masks" / f"{row['image']}.png")
        assert set(np.unique(mask)) == {0, row["cluster"] + 1}
        true = read_mask(photographs.truth / row["image"]) > 0
        assert ((mask > 0) & true).sum() / ((mask > 0) | true).sum() > 0.8


def test_training_learns_the_masks(finished_run: Path, photographs: Photographs) -> None:
    history = (finished_run / "iteration-1/training.csv").read_text().splitlines()
    assert history[0] == "epoch,loss,agreement,learning_rate,images,images_per_s" and len(history) == 3
    first, last = (float(line.split(",")[1]) for line in history[1:])
    assert last < first
    assert not list(finished_run.rglob("checkpoint.pt")) and not list(finished_run.rglob("*.unfinished"))


def test_evaluation_is_stored_as_fractions(finished_run: Path) -> None:
    import json

    for iteration in (0, 1, 2):
        stored = json.loads((finished_run / f"evaluation/iteration-{iteration}.json").read_text())
        for matching in ("hungarian", "majority"):
            assert 0 <= stored[matching]["miou"] <= 1 and 0 <= stored[matching]["pixel_accuracy"] <= 1
            assert set(stored[matching]["per_class"]) == {"background", "circle", "square", "stripes"}
    first = json.loads((finished_run / "evaluation/iteration-0.json").read_text())
    assert first["hungarian"]["miou"] > 0.8 and first["hungarian"]["discovered"] == 4


def test_a_second_run_does_nothing(run_copy: Path, photographs: Photographs) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.is_file()}
    Run(run_copy).run(photographs.images)
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*") if path.is_file()} == before


def test_another_k_redoes_clusters_and_leaves_objects(run_copy: Path) -> None:
    objects = {path: path.stat().st_mtime_ns for path in (run_copy / "objects").iterdir()}
    run = Run(run_copy)
    clusters = run.cluster(k=4)
    assert len(clusters.sizes) == 4
    assert {path: path.stat().st_mtime_ns for path in (run_copy / "objects").iterdir()} == objects
    assert list_iterations(run.folder) == [0]  # the networks were trained on other clusters


def test_an_added_image_redoes_the_shards_behind_it_only(photographs: Photographs, tmp_path: Path) -> None:
    images = Path(shutil.copytree(photographs.images, tmp_path / "images"))
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    run.embed(images)
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/objects").glob("part-*")}
    shutil.copy(images / "00.png", images / "zz.png")
    assert run.embed(images).objects == 25
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/objects").glob("part-*")}
    assert {name for name in now if now[name] != parts.get(name)} == {"part-00003.parquet"}


def test_same_seed_same_bytes_whatever_the_workers(
    finished_run: Path, photographs: Photographs, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    Run(folder, preset="offline", settings=TINY, workers=3).run(
        photographs.images, photographs.truth, photographs.classes
    )
    assert tree_bytes(folder) == tree_bytes(finished_run)


def test_another_seed_trains_another_network(run_copy: Path) -> None:
    before = (run_copy / "iteration-1/segmenter.safetensors").read_bytes()
    run = Run(run_copy, seed=1)
    run.cluster()
    run.train(iterations=1)
    assert (run_copy / "iteration-1/segmenter.safetensors").read_bytes() != before


def test_own_masks_replace_saliency(photographs: Photographs, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    masks = shutil.copytree(photographs.truth, tmp_path / "masks")
    (masks / "00.png").unlink()
    run.embed(photographs.images, masks=str(masks))
    assert [(row["image"], row["reason"]) for row in read_skipped(run.folder).to_pylist()] == [("00.png", "no mask")]
    for row in run.objects().to_pylist():
        true = read_mask(photographs.truth / row["image"]) > 0
        columns, rows = np.flatnonzero(true.any(axis=0)), np.flatnonzero(true.any(axis=1))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == box and row["area"] == true.sum()


@pytest.mark.parametrize("ending", ["npy", "parquet"])
def test_own_embeddings_need_no_images(ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16)) * 10
    truth = np.repeat(np.arange(4), 30)
    rows = (centres[truth] + rng.normal(size=(120, 16))).astype(np.float32)
    file = tmp_path / f"rows.{ending}"
    if ending == "npy":
        np.save(file, rows)
    else:
        pq.write_table(pa.table({"embedding": list(rows)}), file)
    run = Run(tmp_path / "run", preset="offline")
    clusters = run.cluster(file, k=4, n_neighbors=10)
    assert len(set(zip(truth.tolist(), clusters.labels.tolist(), strict=True))) == 4
    direct = fastcomus.cluster(rows, k=4, n_neighbors=10)
    assert (direct.labels == clusters.labels).all() and (direct.is_core == clusters.is_core).all()
    with pytest.raises(InputError, match="embed"):
        run.train()


def test_bad_files_are_recorded_and_the_rest_goes_on(photographs: Photographs, tmp_path: Path) -> None:
    images = Path(shutil.copytree(photographs.images, tmp_path / "images"))
    (images / "broken.jpg").write_bytes(b"no picture")
    (images / "empty.png").write_bytes(b"")
    whole = (images / "00.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (50, 40), "grey").save(images / "blank.png")
    Image.new("RGB", (2000, 1500)).save(images / "huge.png")
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    embedded = run.embed(images, max_pixels=1_000_000)
    assert embedded.objects == 24 and embedded.skipped == 5
    reasons = {row["image"]: row["reason"] for row in read_skipped(run.folder).to_pylist()}
    assert reasons == {
        "broken.jpg": "unreadable",
        "empty.png": "empty file",
        "cut.png": "truncated",
        "blank.png": "no salient region",
        "huge.png": "too large",
    }
    run.cluster()
    assert not read_mask(tmp_path / "run/iteration-0/masks/blank.png.png").any()
    assert not (tmp_path / "run/iteration-0/masks/broken.jpg.png").exists()


def test_more_images_for_later_iterations(run_copy: Path, tmp_path: Path) -> None:
    def trained_on() -> int:
        return int((run_copy / "iteration-2/training.csv").read_text().splitlines()[1].split(",")[-2])

    more = make_photographs(tmp_path / "more", 6).images
    alone = trained_on()
    first_network = (run_copy / "iteration-1/segmenter.safetensors").read_bytes()
    assert Run(run_copy).train(iterations=0).name == "iteration-1"  # on the same images one is enough
    assert Run(run_copy).train(iterations=0, extend=str(more)).name == "iteration-2"
    assert trained_on() > alone
    assert (run_copy / "iteration-1/segmenter.safetensors").read_bytes() == first_network
    assert len(list((run_copy / "iteration-1/extend/masks").iterdir())) == 6
    assert len(list((run_copy / "iteration-2/masks").iterdir())) == 24


def test_other_settings_of_labelling_keep_the_network(run_copy: Path, tmp_path: Path) -> None:
    network, curve = (run_copy / f"iteration-1/{name}" for name in ("segmenter.safetensors", "training.csv"))
    trained, masks = (network.stat().st_mtime_ns, network.read_bytes(), curve.read_bytes()), tree_bytes(run_copy)
    Run(run_copy).train(iterations=1, predict_size=97)
    assert tree_bytes(run_copy / "iteration-1/masks") != {
        name.removeprefix("iteration-1/masks/"): content
        for name, content in masks.items()
        if name.startswith("iteration-1/masks/")
    }
    assert (network.stat().st_mtime_ns, network.read_bytes(), curve.read_bytes()) == trained
    Run(run_copy).train(iterations=1, min_confidence=0.5)
    assert (network.stat().st_mtime_ns, network.read_bytes(), curve.read_bytes()) == trained
    Run(run_copy).train(iterations=1, learning_rate=2e-3)
    assert network.read_bytes() != trained[1] and curve.read_bytes() != trained[2]
    anew = Path(shutil.copytree(run_copy, tmp_path / "anew"))
    shutil.rmtree(anew / "iteration-1")
    Run(anew).train()
    assert (anew / "iteration-1/segmenter.safetensors").read_bytes() == network.read_bytes()


def test_predict_labels_other_images(finished_run: Path, tmp_path: Path) -> None:
    other = make_photographs(tmp_path / "other", 3)
    (other.images / "broken.jpg").write_bytes(b"no picture")
    output = Run(finished_run).predict(other.images, tmp_path / "masks")
    assert sorted(path.name for path in output.glob("*.png")) == ["00.png.png", "01.png.png", "02.png.png"]
    assert read_mask(output / "00.png.png").shape == (80, 96)


def test_a_truncated_shard_is_named_and_embed_mends_it(run_copy: Path, photographs: Photographs) -> None:
    part = run_copy / "objects/part-00001.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="part-00001"):
        Run(run_copy).cluster(k=2)
    (run_copy / "objects/manifest.json").unlink()
    Run(run_copy).embed(photographs.images)
    assert part.read_bytes() == whole


def test_training_interrupted_within_an_epoch_ends_with_the_same_bytes(
    run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a checkpoint after every step, and an interruption in every epoch."""
    monkeypatch.setattr(round_of_training, "CHECKPOINT_S", 0.0)
    for iteration in (1, 2):
        shutil.rmtree(run_copy / f"iteration-{iteration}")
    whole = Path(shutil.copytree(run_copy, tmp_path / "whole"))
    settings = {"iterations": 1, "batch_size": 6, "weight_average": 0.5}
    Run(whole, device="cpu").train(**settings)
    steps, plain = 0, SelfTraining._step

    def interrupted(self: SelfTraining, *arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps in (3, 7):
            raise KeyboardInterrupt
        plain(self, *arguments)

    monkeypatch.setattr(SelfTraining, "_step", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Run(run_copy, device="cpu").train(**settings)
    Run(run_copy, device="cpu").train(**settings)
    assert steps > 7 and tree_bytes(run_copy) == tree_bytes(whole)


def test_of_processes_that_train_together_the_first_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Run(tmp_path / "run", preset="offline")
    first.workplace.remember(first.config)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    second = Run(tmp_path / "run", seed=3)
    written = (tmp_path / "run/run.json").read_bytes()
    with first.workplace.hold_folder(), second.workplace.hold_folder():
        second.workplace.remember(second.config, tmp_path)
    assert second.workplace.images == str(tmp_path) and (tmp_path / "run/run.json").read_bytes() == written


def test_an_attribute_that_a_run_has_not_cannot_be_set(tmp_path: Path) -> None:
    """Such as the backend, which would be ignored."""
    with pytest.raises(AttributeError, match="backend"):
        Run(tmp_path / "run", preset="offline").backend = None  # type: ignore[attr-defined]
