"""Results of what is no longer there: scores of earlier masks, pictures of earlier objects, other weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import BACKBONE, Photographs, tree_bytes
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fastcomus import InputError, Run
from fastcomus.cli.commands import app
from fastcomus.cli.view.pictures import Thumbnails
from fastcomus.clusters.files import read_clusters
from fastcomus.settings import read_toml
from fastcomus.store.corrections import NO_CLUSTER


def shows_scores(run: Run) -> bool:
    return "mIoU" in run.report().read_text(encoding="utf-8")


def test_scores_of_masks_that_have_changed_are_not_shown(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    for iteration in (0, 1):
        shutil.rmtree(run_copy / "evaluation", ignore_errors=True)
        run.evaluate(photographs.truth, photographs.classes, iteration=iteration)
        assert shows_scores(run)
        if iteration:
            run.train(epochs=3, iterations=1)
        else:
            run.correct([0], "-")
        assert not shows_scores(run)
        run.evaluate(photographs.truth, photographs.classes, iteration=iteration)
        assert shows_scores(run)


def test_a_report_with_missing_pictures_or_an_old_path_is_written_again(
    run_copy: Path, photographs: Photographs, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(photographs.images, tmp_path / "moved"))
    away = sorted(images.iterdir())[3]
    Run(run_copy, images=images).report()
    whole = sorted(file.name for file in (run_copy / "report").rglob("*"))
    shutil.rmtree(run_copy / "report")
    away.rename(tmp_path / "away.png")
    Run(run_copy, images=images).report()
    assert sorted(file.name for file in (run_copy / "report").rglob("*")) != whole
    (tmp_path / "away.png").rename(away)
    Run(run_copy, images=images).report()
    assert sorted(file.name for file in (run_copy / "report").rglob("*")) == whole


def test_thumbnails_are_those_of_the_objects_that_are_there(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    shutil.rmtree(run_copy / "report", ignore_errors=True)
    thumbnails = Thumbnails(run)
    assert all(thumbnails.read(row) for row in range(24))
    before = thumbnails.read(1)
    run.embed(sorted(photographs.images.iterdir())[1:], replace=True)
    assert thumbnails.read(0) == before != thumbnails.read(1)
    with pytest.raises(InputError, match="there is no object 23"):
        thumbnails.read(23)


def test_other_weights_under_the_same_name_are_learnt_from(run_copy: Path, tmp_path: Path) -> None:
    weights = shutil.copy(BACKBONE["backbone_weights"], tmp_path / "weights.safetensors")
    run = Run(run_copy)
    run.train(iterations=1, backbone_weights=str(weights))
    first = (run_copy / "iteration-1/segmenter.safetensors").read_bytes()
    save_file({name: -value for name, value in load_file(weights).items()}, weights)
    run.train(iterations=1)
    assert (run_copy / "iteration-1/segmenter.safetensors").read_bytes() != first


def test_a_photograph_of_another_size_is_told_before_training(
    run_copy: Path, photographs: Photographs, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(photographs.images, tmp_path / "images"))
    changed = sorted(images.iterdir())[0]
    Image.open(changed).resize((60, 50)).save(changed)
    before = (run_copy / "iteration-1/segmenter.safetensors").read_bytes()
    with pytest.raises(InputError, match=f"{changed.name} is 60 x 50 pixels, and its masks are 96 x 80; run fastcomus"):
        Run(run_copy, images=images).train(epochs=3)
    assert (run_copy / "iteration-1/segmenter.safetensors").read_bytes() == before


def test_a_network_that_does_not_know_an_added_cluster_still_predicts(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    run.correct([0, 1], "new")
    run.name({3: "own", 0: "round"})
    predicted = run.predict(photographs.images, probabilities=True)
    shares = [np.load(file).astype(np.float32) for file in sorted(predicted.glob("probabilities/*.npy"))]
    assert len(shares) == 24 and all(np.allclose(one.sum(axis=0), 1, atol=0.01) for one in shares)


def test_all_but_one_object_are_none(run_copy: Path, photographs: Photographs, tmp_path: Path) -> None:
    run = Run(run_copy)
    run.correct(list(range(1, 24)), "-")
    assert run.report().exists()
    with pytest.raises(InputError, match=r"assign needs at least 2 objects in clusters.* is 1\. Take corrections"):
        run.assign(photographs.images)


@pytest.mark.parametrize("assign", ["qr", "normalized", "kmeans"])
def test_new_objects_come_to_a_cluster_that_a_person_made(
    assign: str, run_copy: Path, photographs: Photographs
) -> None:
    run = Run(run_copy)
    labels = run.cluster(k=2, assign=assign).labels
    kinds = np.array([int(name[:2]) % 3 for name in run.objects()["image"].to_pylist()])
    shared = int(np.bincount(labels).argmax())
    kind = int(np.unique(kinds[labels == shared])[1])
    own = np.flatnonzero(kinds == kind)
    run.correct(own[:6].tolist(), "new")
    import pyarrow.parquet as pq

    assigned = pq.read_table(run.assign(photographs.images)).to_pydict()["cluster"]
    assert [assigned[row] for row in own] == [2] * len(own)


def test_what_replace_would_do_is_said_as_it_is_done(run_copy: Path, photographs: Photographs, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for number, file in enumerate(sorted(photographs.images.iterdir())[:6]):
        shutil.copy(file, others / f"other-{number}.png")
    line = ["run", str(others), "--run", str(run_copy), "--dry-run"]
    refused = CliRunner().invoke(app, line)
    assert isinstance(refused.exception, InputError) and "--replace" in str(refused.exception)
    told = CliRunner().invoke(app, [*line, "--replace"])
    assert told.exit_code == 0 and "6 photographs" in told.output
    assert len(Run(run_copy).objects()) == 24


def test_settings_saved_by_a_windows_editor(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[cluster]\nk = 5\n", encoding="utf-8-sig")
    assert read_toml(tmp_path / "settings.toml") == {"cluster": {"k": 5}}


def test_lost_masks_and_networks_are_made_anew(run_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, before = Run(run_copy), tree_bytes(run_copy)
    masks = [sorted(run_copy.glob(f"iteration-{number}/masks/*.png"))[3] for number in (0, 1)]
    for lost in masks:
        lost.unlink()
    assert run.train(iterations=1) == run_copy / "iteration-1"
    for lost in masks:
        assert lost.read_bytes() == before[lost.relative_to(run_copy).as_posix()]
    assert "iteration-0: masks are gone (1 in all, such as that of 03.png); made anew" in caplog.text
    assert "iteration-1: masks are gone (1 in all, such as iteration-1/masks/03.png.png); made anew" in caplog.text
    network = run_copy / "iteration-1/segmenter.safetensors"
    network.write_bytes(network.read_bytes()[:100])
    run.train(iterations=1)
    assert network.read_bytes() == before["iteration-1/segmenter.safetensors"]
    caplog.clear()
    with caplog.at_level("INFO"):
        run.train(iterations=1)
    assert "iteration-1: up to date" in caplog.text


def test_the_network_of_earlier_settings_comes_back(run_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(run_copy)
    run.train(iterations=1)
    before = {name: content for name, content in tree_bytes(run_copy).items() if name.startswith("iteration-1/")}
    run.train(epochs=3)
    assert len(list(run_copy.glob("iteration-1/earlier/*/segmenter.safetensors"))) == 1
    caplog.clear()
    with caplog.at_level("INFO"):
        run.train(epochs=2)
    assert "its network was trained before with these settings; only masks are made anew" in caplog.text
    after = tree_bytes(run_copy)
    assert {name: after[name] for name in before} == before
    for epochs in (4, 5, 6):
        run.train(epochs=epochs)
    assert len(list(run_copy.glob("iteration-1/earlier/*"))) == 3  # of five


def test_the_last_word_about_an_object_holds_whichever_clusters_come_back(run_copy: Path) -> None:
    run = Run(run_copy)
    run.correct([5], "-")
    run.correct([7, 8], "new")
    labels = read_clusters(run.folder).labels
    run.cluster(k=2)
    assert (read_clusters(run.folder).labels == NO_CLUSTER).nonzero()[0].tolist() == [5]
    run.correct([5], 0)  # it is one, after all
    run.correct([8], "found")
    run.cluster(k=3)
    now = read_clusters(run.folder).labels
    assert now[5] != NO_CLUSTER and now[7] == labels[7] == 3 and now[8] != 3
    run.correct([5], "-")
    run.cluster(k=2)
    assert read_clusters(run.folder).labels[5] == NO_CLUSTER


def test_a_command_that_is_repeated_adds_nothing(run_copy: Path) -> None:
    run = Run(run_copy)
    run.correct([9, 3], "new")
    before = tree_bytes(run_copy)
    assert len(run.correct([3, 9], "new")) == len(run.correct([9], 3)) == 2
    assert tree_bytes(run_copy) == before


def test_what_spreadsheets_get_is_written_again_after_a_kill(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(run_copy)
    run.name({0: "cat"})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastcomus.clusters.shown_tables._write_csv", die)
        with pytest.raises(KeyboardInterrupt):
            run.name({0: "bird"})
    Run(run_copy).name({0: "bird"})
    text = (run_copy / "clusters/clusters.csv").read_text(encoding="utf-8")
    assert "bird" in text and "cat" not in text


def test_damaged_clusters_that_were_put_aside_harm_no_others(run_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(run_copy)
    run.cluster(k=2)
    run.cluster(k=4)
    kept = sorted((run_copy / "kept").iterdir())
    (kept[0] / "clusters/manifest.json").unlink()
    table = kept[1] / "clusters/clusters.parquet"
    table.write_bytes(table.read_bytes()[:200])
    assert [one.k for one in run.history()] == [4]
    assert all(f"history: {one.name} is damaged and left out" in caplog.text for one in kept)
    before = tree_bytes(run_copy)
    for one in kept:
        with pytest.raises(InputError, match=f"is damaged; fastcomus history --delete {one.name} removes it"):
            run.history(use=one.name)
    assert tree_bytes(run_copy) == before
    for one in kept:
        run.history(delete=one.name)
    assert not list((run_copy / "kept").iterdir())


def test_pages_and_masks_that_are_gone_are_not_up_to_date(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    page = run.report()
    page.unlink()
    assert run.report().exists()
    folder = run.predict(photographs.images)
    mask = folder / "03.png.png"
    whole = mask.read_bytes()
    mask.write_bytes(b"")
    run.predict(photographs.images)
    assert mask.read_bytes() == whole
    curve = run_copy / "iteration-1/training.csv"
    curve.write_text(curve.read_text(encoding="utf-8")[:-30], encoding="utf-8")
    run.name({0: "cat"})
    with pytest.raises(InputError, match=r"training\.csv is damaged .*; delete it, and its curve is left out"):
        run.report()
