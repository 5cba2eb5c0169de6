"""`--saliency auto`: which photographs teach a network of their own, and what becomes of it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ENCODER, SALIENCY, TINY, Photographs, make_photographs, tree_bytes
from PIL import Image

from fastcomus import Run
from fastcomus.images.found import ImageList
from fastcomus.run.plan import plan_run
from fastcomus.run.saliency_network import select_teachers
from fastcomus.settings import get_preset_config, with_settings

SETTINGS: dict[str, Any] = {
    **TINY,
    "embed": {**TINY["embed"], **ENCODER},
    "saliency": {**SALIENCY, "refine_epochs": 1, "epochs": 2, "size": 65, "batch_size": 6, "least_images": 12},
}


def make_run(folder: Path, **saliency: Any) -> Run:
    settings = {**SETTINGS, "saliency": {**SETTINGS["saliency"], **saliency}}
    return Run(folder, preset="offline", device="cpu", settings=settings)


def read_method(run: Run) -> str:
    return str((run.folder.read_manifest("objects") or {})["saliency"])


def list_networks(run: Run) -> list[str]:
    return sorted(file.name for file in run.folder.path.glob("saliency/*.safetensors"))


@pytest.fixture(scope="module")
def taught(few: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose photographs taught a network that found its objects."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    make_run(folder).embed(few.images)
    return folder


def test_enough_photographs_teach_a_network_that_is_kept(taught: Path, few: Photographs, tmp_path: Path) -> None:
    shutil.copytree(taught, tmp_path / "run")
    run = make_run(tmp_path / "run")
    before = tree_bytes(tmp_path / "run")
    (network,) = list_networks(run)
    assert read_method(run) == f"saliency/{network}"

    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*.*")}
    run.embed(few.images)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*.*")} == stamps

    run.embed(few.images, saliency="background-prior")
    assert read_method(run) == "background-prior" and list_networks(run) == [network]
    changed = tree_bytes(tmp_path / "run")
    assert changed["objects/part-00000.parquet"] != before["objects/part-00000.parquet"]

    run.train_saliency(few.images, epochs=1)
    assert len(list_networks(run)) == 2
    run.configure({"saliency": {"epochs": 2}})
    run.embed(few.images, saliency="auto")
    after = tree_bytes(tmp_path / "run")
    assert {name for name in before if after[name] != before[name]} == {"saliency/manifest.json"}

    copied = Run(tmp_path / "copy", preset="offline", device="cpu", settings=SETTINGS)
    copied.embed(few.images, saliency=str(tmp_path / "run/saliency" / network))
    assert copied.objects().equals(run.objects())


def test_new_objects_are_found_by_the_network_that_found_those_before(taught: Path, tmp_path: Path) -> None:
    shutil.copytree(taught, tmp_path / "run")
    run = make_run(tmp_path / "run")
    run.cluster()
    others = make_photographs(tmp_path / "others", 5)
    run.assign(others.images, tmp_path / "assigned")
    assert read_method(Run(tmp_path / "assigned")).endswith(list_networks(run)[0])
    assert not list((tmp_path / "assigned").rglob("*.safetensors"))


def test_few_photographs_are_left_to_the_prior(
    few: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = make_run(tmp_path / "few", least_images=13, common_features=False)
    run.embed(few.images)
    assert "12 photographs are too few to teach a network (13 would do): three-priors\n" in caplog.text
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "few/objects").iterdir()}
    run.embed(few.images, saliency="three-priors")
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "few/objects").iterdir()} == stamps


def test_few_photographs_teach_what_their_objects_have_in_common(
    few: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = make_run(tmp_path / "few", least_images=13)
    assert "of which 12 first teach what they have in common" in str(plan_run(run.workplace, few.images, "", ""))
    embedded = run.embed(few.images)
    assert "(13 would do): three-priors, weighed by what their objects have in common" in caplog.text
    (file,) = list_networks(run)
    assert embedded.objects == 12 and read_method(run) == f"saliency/{file}"
    found = run.objects()

    run.embed(few.images, saliency="three-priors")
    assert not run.objects()["mask"].equals(found["mask"])
    run.embed(few.images, saliency="auto", prior_weight=0.1)  # there is no network that could have the rest
    assert run.objects()["mask"].equals(found["mask"]) and list_networks(run) == [file]

    others = make_photographs(tmp_path / "others", 1)
    copied = Run(tmp_path / "copy", preset="offline", device="cpu", settings=SETTINGS)
    assert copied.embed(others.images, saliency=str(tmp_path / "few/saliency" / file)).objects == 1
    alone = make_run(tmp_path / "alone")
    alone.embed(others.images)
    assert read_method(alone) == "three-priors"  # one photograph has nothing in common with others


def test_photographs_of_nothing_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(np.full((60, 80, 3), 40 * number, np.uint8)).save(tmp_path / f"images/{number}.png")
    run = make_run(tmp_path / "run", least_images=3)
    embedded = run.embed(tmp_path / "images")
    assert (embedded.objects, embedded.skipped) == (0, 4) and read_method(run) == "three-priors"
    assert "nothing stands out in any of the 4 images" in caplog.text


def test_of_many_photographs_those_that_the_seed_draws_teach() -> None:
    names = tuple(f"{number:03d}.jpg" for number in range(200))
    config = with_settings(get_preset_config("offline"), {"saliency": {"max_images": 50}})
    drawn = select_teachers(ImageList(Path(), names, ()), config).names
    assert len(drawn) == 50 and list(drawn) == sorted(drawn) and 60 < np.mean([int(name[:3]) for name in drawn]) < 140
    assert select_teachers(ImageList(Path(), names, ()), with_settings(config, {"seed": 1})).names != drawn
    fewer = select_teachers(ImageList(Path(), names[:-1], ()), config).names
    assert len({*drawn} - {*fewer}) <= 1  # one photograph more or less changes hardly anything
    assert select_teachers(ImageList(Path(), names[:50], ()), config).names == names[:50]
