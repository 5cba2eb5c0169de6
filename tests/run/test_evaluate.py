"""A run folder's class maps against every kind of truth, as the command line does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Photographs
from PIL import Image
from typer.testing import CliRunner

from fastcomus import InputError, Run
from fastcomus.cli.commands import app
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.evaluation.image_labels import LabelEvaluation
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.evaluation.truth.voc import CLASSES

VOC_LABELS = (0, 4, 15, 20)  # of the three kinds of objects, in VOC's numbering


@pytest.fixture(scope="module")
def devkit(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs' truth as VOC 2012, the first 16 in val, the others in train."""
    root = tmp_path_factory.mktemp("voc") / "VOC2012"
    for name in ("SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    names = sorted(path.stem for path in photographs.truth.iterdir())
    for name in names:
        labels = np.array(VOC_LABELS, np.uint8)[read_mask(photographs.truth / f"{name}.png")]
        Image.fromarray(labels).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[:16]))
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names[16:]))
    return root


def test_voc_truth_scores_as_the_masks_do(run_copy: Path, photographs: Photographs, devkit: Path) -> None:
    run = Run(run_copy)
    listed = run_copy.parent / "val.txt"
    listed.write_text("\n".join(f"{index:02d}.png" for index in range(16)))
    by_masks = run.evaluate(f"masks:{photographs.truth}@{listed}", photographs.classes, 0)
    by_voc = run.evaluate(f"voc:{devkit}@val", iteration=0)
    assert isinstance(by_masks, Evaluation) and isinstance(by_voc, Evaluation)
    assert by_voc.images == 16 and by_voc.missing == 0 and by_voc.classes == CLASSES
    assert by_voc.hungarian.miou == by_masks.hungarian.miou > 0.8
    assert tuple(by_voc.hungarian.per_class[label] for label in VOC_LABELS) == by_masks.hungarian.per_class
    stored = json.loads((run_copy / "evaluation/iteration-0.json").read_text())
    assert Evaluation.from_json(stored) == by_voc


def test_the_matching_is_fitted_on_another_split_or_list(run_copy: Path, devkit: Path) -> None:
    run = Run(run_copy)
    fitted = run.evaluate(f"voc:{devkit}@val", iteration=0, fit_on="train")
    plain = run.evaluate(f"voc:{devkit}@val", iteration=0)
    assert isinstance(fitted, Evaluation) and isinstance(plain, Evaluation)
    assert fitted.fitted_on == 8 and fitted.images == 16
    assert fitted.hungarian == plain.hungarian  # the clusters are pure here
    partly = run.evaluate(f"voc:{devkit}@val", iteration=0, fit_on=devkit / "ImageSets/Segmentation/train.txt")
    assert isinstance(partly, Evaluation) and partly.hungarian == plain.hungarian
    with pytest.raises(InputError, match=r"--fit-on val shares 16 images with --truth .*@val, 00\.png for instance"):
        run.evaluate(f"voc:{devkit}@val", fit_on="val")


def test_a_list_without_a_kind_leaves_its_cluster_unmatched(run_copy: Path, photographs: Photographs) -> None:
    listed, rest = run_copy.parent / "two kinds.txt", run_copy.parent / "rest.txt"
    listed.write_text("00\n01\n")
    rest.write_text("\n".join(f"{index:02d}" for index in range(2, 24)))
    fitted = Run(run_copy).evaluate(f"{photographs.truth}@{rest}", photographs.classes, 0, fit_on=listed)
    assert isinstance(fitted, Evaluation)
    assert sum(label is not None for label in fitted.hungarian.assignment) == 3
    assert fitted.hungarian.per_class[3] == 0.0 and min(fitted.hungarian.per_class[:3]) > 0.8


def test_images_in_a_folder_per_class(photographs: Photographs, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for index, path in enumerate(sorted(photographs.images.iterdir())):
        folder = data / ("circle", "square", "stripes")[index % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.name)
    Image.new("RGB", (50, 40), "grey").save(data / "circle/blank.png")
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    run.embed(data)
    run.cluster()
    found = run.evaluate(f"folders:{data}", bootstrap=20)
    assert isinstance(found, LabelEvaluation)
    assert found.accuracy == 24 / 25 and found.images == 25 and found.empty == 1
    assert set(found.intervals) == {"accuracy", "majority_accuracy"}
    assert json.loads((tmp_path / "run/evaluation/iteration-0.json").read_text())["accuracy"] == 24 / 25
    fitting, scored = tmp_path / "fitting.txt", tmp_path / "scored.txt"
    names = sorted(str(path.relative_to(data)) for path in data.rglob("*.png"))
    fitting.write_text("\n".join(names[::2]))
    scored.write_text("\n".join(names[1::2]))
    fitted = run.evaluate(f"folders:{data}@{scored}", fit_on=fitting)
    assert isinstance(fitted, LabelEvaluation) and fitted.accuracy >= 11 / 12 and fitted.fitted_on == 13


def test_the_command_line_prints_intervals_and_says_what_is_wrong(run_copy: Path, devkit: Path) -> None:
    line = ["evaluate", "--run", str(run_copy), "--truth", f"voc:{devkit}@val", "--bootstrap", "20", "--fit-on"]
    reply = CliRunner().invoke(app, [*line, "train"], env={"COLUMNS": "120"}, catch_exceptions=False)
    assert reply.exit_code == 0 and "95% interval" in reply.stdout and "on 8 other images" in reply.stdout
    assert "mean over these" in reply.stdout
    for wrong, told in (
        ([*line, "trian"], "neither a split of"),
        ([*line[:-2], "-1"], "--bootstrap must be 0 or more; got -1"),
        (["evaluate", "--run", str(run_copy), "--truth", f"voc:{devkit}"], "does not say which split"),
    ):
        reply = CliRunner().invoke(app, wrong)
        assert isinstance(reply.exception, InputError) and told in str(reply.exception)


def test_masks_of_0_and_255_are_scored_as_object_or_not(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fastcomus")
    lost = min((run_copy / "iteration-0/masks").iterdir())
    with Image.open(lost) as mask:
        mask.point(lambda _: 0).save(lost)
    by_class = Run(run_copy).evaluate(photographs.truth, photographs.classes, 0)
    masks = run_copy.parent / "masks"
    masks.mkdir()
    for path in photographs.truth.iterdir():
        Image.fromarray((read_mask(path) > 0) * np.uint8(255)).save(masks / path.name)
    line = ["evaluate", "--run", str(run_copy), "--iteration", "0", "--truth", str(masks)]
    reply = CliRunner().invoke(app, line, env={"COLUMNS": "120"}, catch_exceptions=False)
    assert isinstance(by_class, Evaluation) and by_class.foreground_iou < 1
    assert f"{100 * by_class.foreground_iou:.1f}" in reply.stdout and "Hungarian" not in reply.stdout
    assert "tell only object from background" in caplog.text
    reply = CliRunner().invoke(app, [*line, "--classes", str(photographs.classes)])
    assert isinstance(reply.exception, InputError) and "leave --classes out" in str(reply.exception)


def test_classes_that_do_not_fit_are_told_before_training(
    run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fastcomus")
    classes = run_copy.parent / "classes.txt"
    classes.write_text("background\na\nb\nc\nzebra\n")
    Run(run_copy).evaluate(photographs.truth, classes, 0)
    assert "no scored mask has zebra" in caplog.text
    classes.write_text("background\na\n")
    shutil.rmtree(run_copy / "iteration-1")
    with pytest.raises(InputError, match=r"16 masks of 24 in .* labels above 1, where the classes end: 2, 3, first in"):
        Run(run_copy).run(photographs.images, photographs.truth, classes)
    assert not (run_copy / "iteration-1").exists()


def test_a_list_of_absent_masks_is_told_before_anything_is_computed(photographs: Photographs, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("00\nlost\nlost too\n")
    with pytest.raises(InputError, match=r"2 images without a mask in .*: lost, lost too;"):
        Run(tmp_path / "run", preset="offline").run(photographs.images, f"{photographs.truth}@{listed}")
    assert not (tmp_path / "run").exists()


def test_images_without_truth_and_truths_without_an_image_are_counted(
    run_copy: Path, photographs: Photographs, devkit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fastcomus")
    masks = Path(shutil.copytree(photographs.truth, run_copy.parent / "masks"))
    (masks / "07.png").rename(masks / "another.png")
    Run(run_copy).evaluate(masks, iteration=0)
    assert "1 of the 24 images of this run have no truth, 07.png for instance" in caplog.text
    assert "1 truths belong to no image of this run, another.png for instance" in caplog.text
    Run(run_copy).evaluate(f"voc:{devkit}@val", iteration=0)
    assert "8 of the 24 images of this run have no truth, 16.png for instance" in caplog.text
