"""`--objects several` on made scenes of one class each and of two: the verdict, where it is kept, what follows."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import ENCODER, TINY, Photographs, make_photographs, tree_bytes

from fastcomus import Run
from fastcomus.cli.demo.scenes import make_scenes
from fastcomus.images.listing import find_listed_images
from fastcomus.run.drawn_images import draw_images
from fastcomus.run.judged_objects import presume_objects, settle_objects
from fastcomus.run.plan import plan_run

SCENES = 32  # as many as are judged


def make_run(folder: Path) -> Run:
    return Run(folder, preset="offline", device="cpu", settings={"embed": {"saliency": "background-prior"}})


def read_verdicts(run: Run) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(run.folder.path.glob("objects/verdict-*.json"))]


def count_objects(run: Run) -> Counter[int]:
    """How many photographs have so many objects."""
    return Counter(Counter(run.objects()["image"].to_pylist()).values())


def link_few(one_each: Path, folder: Path) -> Path:
    """A folder with six of the scenes."""
    few = folder / "few"
    few.mkdir()
    for image in sorted((one_each / "scenes/images").iterdir())[:6]:
        (few / image.name).symlink_to(image)
    return few


@pytest.fixture(scope="module")
def one_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with the objects of scenes/images, which show one object each."""
    folder = tmp_path_factory.mktemp("one-each")
    make_scenes(folder / "scenes", SCENES, seed=0, objects=1)
    make_run(folder / "run").embed(folder / "scenes/images", objects="several")
    return folder


def test_one_object_each_stays_one(one_each: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    run = make_run(one_each / "run")
    assert set(count_objects(run)) == {1}
    before = tree_bytes(one_each / "run")
    for objects in ("several", "one", "several"):
        assert run.embed(one_each / "scenes/images", objects=objects).images == SCENES
    assert {name: tree_bytes(one_each / "run")[name] for name in before if name.startswith("objects")} == {
        name: content for name, content in before.items() if name.startswith("objects")
    }
    assert caplog.text.count("embed: up to date") == 3
    (verdict,) = read_verdicts(run)
    assert verdict["objects"] == "one" and verdict["photographs"] == SCENES and verdict["evidence"] < 0.8


def test_several_objects_each_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    make_scenes(tmp_path / "scenes", SCENES, seed=0, objects=2)
    run = make_run(tmp_path / "run")
    run.embed(tmp_path / "scenes/images", objects="several")
    assert f"{SCENES} photographs, looked at both ways, show several objects each" in caplog.text
    assert read_verdicts(run)[0]["evidence"] > 1.2
    assert sum(count for objects, count in count_objects(run).items() if objects > 1) > SCENES / 2
    run.embed(tmp_path / "scenes/images", objects="always-several")
    assert "embed: up to date" in caplog.text


def test_always_several_does_not_judge_and_few_are_not_judged(
    one_each: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    few = link_few(one_each, tmp_path)
    found = []
    for objects in ("several", "always-several"):
        run = make_run(tmp_path / objects)
        run.embed(few, objects=objects)
        found.append(run.objects().to_pylist())
        assert not read_verdicts(run)
    assert found[0] == found[1] and len(found[0]) > 6 and "looked at both ways" not in caplog.text


def test_new_photographs_are_searched_as_those_before(one_each: Path, tmp_path: Path) -> None:
    run = make_run(one_each / "run")
    run.embed(one_each / "scenes/images", objects="several")
    run.cluster(k=8)
    assert plan_run(run.workplace, one_each / "scenes/images", "", "")[0].work == ""
    new = Run(tmp_path / "new", preset="offline", settings={"embed": {"objects": "several"}})
    assert (
        f"{SCENES} are first looked at for several"
        in plan_run(new.workplace, one_each / "scenes/images", "", "")[0].work
    )
    assert not (tmp_path / "new").exists()
    few = link_few(one_each, tmp_path)  # not judged by themselves
    assert pq.read_table(run.assign(few, tmp_path / "assigned")).num_rows == 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    return make_photographs(tmp_path_factory.mktemp("made"), 31)


def make_tiny_run(folder: Path) -> Run:
    settings = {**TINY, "embed": {**TINY["embed"], **ENCODER, "saliency": "background-prior"}}
    return Run(folder, preset="offline", device="cpu", settings=settings)


def test_other_photographs_and_settings_are_judged_anew(
    made: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    run = make_tiny_run(tmp_path / "run")
    run.embed(made.images, objects="several")
    run.embed(made.images, objects="several", crop_size=40)
    assert len(read_verdicts(run)) == 2
    run.embed(made.images, objects="several", crop_size=32)
    assert len(read_verdicts(run)) == 2 and caplog.text.count("looked at both ways") == 2
    (made.images / "00.png").touch()
    run.embed(made.images, objects="several")
    assert len(read_verdicts(run)) == 3


def test_too_few_that_can_be_read_give_no_verdict(
    made: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    some = tmp_path / "some"
    some.mkdir()
    for image in sorted(made.images.iterdir()):
        (some / image.name).write_bytes(image.read_bytes() if int(image.stem) < 29 else b"no picture")
    run = make_tiny_run(tmp_path / "run")
    run.embed(some, objects="several")
    assert "29 photographs, looked at both ways, show too little to tell one object each from several" in caplog.text
    assert read_verdicts(run)[0]["objects"] == "several"


def test_lost_photographs_leave_no_verdict(made: Photographs, tmp_path: Path) -> None:
    """As on a drive that was out of reach: the next time is another try."""
    run = make_tiny_run(tmp_path / "run")
    at = run.workplace
    at.lay_over({"embed": {"objects": "several"}})
    found = find_listed_images(made.images, 1.0)
    lost = replace(found, names=(*found.names, "gone.png"))
    with at.hold_folder():
        for names, verdicts in ((lost, 0), (found, 1)):
            settled = settle_objects(
                names, at.config, "background-prior", at, at.choose_engine("local", ""), lambda: "background-prior"
            )
            assert settled in ("one", "several") and len(read_verdicts(run)) == verdicts


def test_masks_say_themselves_how_many(made: Photographs, tmp_path: Path) -> None:
    run = make_tiny_run(tmp_path / "run")
    found = find_listed_images(made.images, 1.0)
    asked = replace(run.workplace.config.embed, objects="several")
    assert presume_objects(found, asked, run.workplace).count == 31
    for other in (
        replace(asked, saliency="maskcut"),
        replace(asked, masks=str(made.truth)),
        replace(asked, objects="one"),
        replace(asked, objects="always-several"),
    ):
        assert not presume_objects(found, other, run.workplace).count
    run.embed(made.images, masks=str(made.truth), objects="several")
    assert not read_verdicts(run) and len(run.objects()) == 31


def test_what_is_drawn_depends_on_the_seed_and_the_names_alone(made: Photographs) -> None:
    found = find_listed_images(made.images, 1.0)
    drawn = draw_images(found, 10, 0).names
    assert len(drawn) == 10 and set(drawn) < set(found.names) and list(drawn) == sorted(drawn)
    turned = replace(found, names=found.names[::-1])
    assert draw_images(turned, 10, 0).names == drawn != draw_images(found, 10, 1).names
    fewer = replace(found, names=tuple(name for name in found.names if name != drawn[0]))
    assert set(drawn[1:]) < set(draw_images(fewer, 10, 0).names)
    assert draw_images(found, 31, 0) == found
