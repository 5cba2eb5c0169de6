"""`--objects several` on made scenes of one class each and of two: the verdict, where it is kept, what follows."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import tree_bytes

from fastcomus import Run
from fastcomus.cli.demo.scenes import make_scenes
from fastcomus.run.plan import plan_run

SCENES = 32  # as many as are judged


def make_run(folder: Path) -> Run:
    return Run(folder, preset="offline", device="cpu", settings={"embed": {"saliency": "background-prior"}})


def count_objects(run: Run) -> Counter[int]:
    """How many photographs have so many objects."""
    return Counter(Counter(run.objects()["image"].to_pylist()).values())


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
    told = f"{SCENES} photographs, looked at both ways, show one object each, which is what is looked for; --objects "
    assert caplog.text.count(told + "always-several looks for more") == 2


def test_several_objects_each_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    make_scenes(tmp_path / "scenes", SCENES, seed=0, objects=2)
    run = make_run(tmp_path / "run")
    run.embed(tmp_path / "scenes/images", objects="several")
    assert f"{SCENES} photographs, looked at both ways, show several objects each" in caplog.text
    assert sum(count for objects, count in count_objects(run).items() if objects > 1) > SCENES / 2
    run.embed(tmp_path / "scenes/images", objects="always-several")
    assert "embed: up to date" in caplog.text


def test_always_several_does_not_judge_and_few_are_not_judged(
    one_each: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastcomus")
    few = tmp_path / "few"
    few.mkdir()
    for image in sorted((one_each / "scenes/images").iterdir())[:6]:
        (few / image.name).symlink_to(image)
    found = []
    for objects in ("several", "always-several"):
        run = make_run(tmp_path / objects)
        run.embed(few, objects=objects)
        found.append(run.objects().to_pylist())
        assert not list((tmp_path / objects).glob("objects/verdict-*"))
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
    assigned = run.assign(one_each / "scenes/images", tmp_path / "assigned")
    assert pq.read_table(assigned).num_rows == SCENES
