"""`run` on folders that are not what it is made for: a result, or a sentence that says why there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ENCODER, SALIENCY, TINY, make_photographs
from PIL import Image, ImageDraw

from fastcomus import InputError, Run

SETTINGS: dict[str, Any] = {
    "saliency": {**SALIENCY, "epochs": 1, "size": 33, "batch_size": 10},
    "embed": {**TINY["embed"], **ENCODER},
    "train": {**TINY["train"], "iterations": 1, "epochs": 1, "train_size": 33},
    "predict": {**TINY["predict"], "predict_size": 33},
}


def run_on(folder: Path, **saliency: Any) -> Run:
    settings = {**SETTINGS, "saliency": {**SETTINGS["saliency"], **saliency}}
    run = Run(folder / "run", preset="offline", device="cpu", settings=settings)
    run.run(folder / "images")
    return run


def save(folder: Path, make: Callable[[int], Image.Image], count: int) -> Path:
    (folder / "images").mkdir()
    for number in range(count):
        make(number).save(folder / f"images/{number:03d}.png")
    return folder


def draw_page(number: int) -> Image.Image:
    """Black lines of text, some words long, on white paper."""
    page, random = Image.new("RGB", (60, 80), "white"), np.random.default_rng(number)
    for y in range(8, 74, 5):
        ImageDraw.Draw(page).line((6, y, random.integers(25, 54), y), (25, 25, 30), 2)
    return page


def draw_disc(_: int) -> Image.Image:
    disc = Image.new("RGB", (40, 30), (90, 120, 90))
    ImageDraw.Draw(disc).ellipse((8, 4, 30, 26), (220, 40, 30))
    return disc


def test_photographs_of_one_flat_colour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = save(tmp_path, lambda _: Image.new("RGB", (60, 40), (90, 130, 70)), 6)
    with pytest.raises(InputError, match=r"no object to cluster: of 6 images all .*no salient region: 6.*--masks"):
        run_on(folder, least_images=5)
    assert "nothing stands out in any of the 6 images" in caplog.text


def test_documents(tmp_path: Path) -> None:
    run = run_on(save(tmp_path, draw_page, 8))
    objects = run.objects()
    assert set(objects["image"].to_pylist()) <= {f"{number:03d}.png" for number in range(8)}
    for name in objects["image"].to_pylist():
        with Image.open(run.folder.path / f"iteration-1/masks/{name}.png") as mask:
            assert mask.size == (60, 80)


def test_one_photograph_a_hundred_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(InputError, match=r"got 1 different ones among N=100. Add images that are no copies"):
        run_on(save(tmp_path, draw_disc, 100))
    assert "100 of 100 photographs first teach a network" in caplog.text


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (9, "9 photographs are too few to teach a network (10 would do): three-priors"),
        (20, "20 of 20 photographs first teach a network of their own"),
    ],
)
def test_few_photographs(tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, told: str) -> None:
    caplog.set_level(logging.INFO)
    make_photographs(tmp_path, count)
    run = run_on(tmp_path)
    assert told in caplog.text
    assert len(run.objects()) == count and len(list((tmp_path / "run/iteration-1/masks").glob("*.png"))) == count


def test_more_clusters_than_photographs_are_refused_before_anything_is_looked_for(tmp_path: Path) -> None:
    make_photographs(tmp_path, 5)
    run = Run(tmp_path / "run", preset="offline", device="cpu", settings={**SETTINGS, "cluster": {"k": 6}})
    with pytest.raises(InputError, match=r"6 clusters need at least as many photographs; got 5\. Lower --k"):
        run.run(tmp_path / "images")
    assert not (tmp_path / "run/objects").exists()


def test_a_single_photograph_is_refused_before_anything_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 2 photographs; got 1\. Add some"):
        run_on(save(tmp_path, draw_disc, 1))
    assert not (tmp_path / "run/objects").exists()
