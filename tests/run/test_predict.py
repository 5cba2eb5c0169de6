"""What `predict` writes, that it goes on after a kill to the same bytes, and does again only what changed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Photographs, make_photographs, tree_bytes
from PIL import Image
from safetensors.torch import save_file
from tiny_segmenter import make_segmenter

from fastcomus import InputError, Run
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.networks.inference import has_openvino
from fastcomus.segmentation import files
from fastcomus.segmentation.predicted_files import render_overlay
from fastcomus.store.masks import make_voc_palette


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Seventy images, more than a window, one of them broken."""
    made = make_photographs(tmp_path_factory.mktemp("others"), 70)
    (made.images / "broken.jpg").write_bytes(b"no picture")
    return made


@pytest.fixture(scope="module")
def trained(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose last network has a fresh head: several labels in every image."""
    folder = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("trained") / "run"))
    network = make_segmenter(3).state_dict()
    save_file({key: one.contiguous() for key, one in network.items()}, folder / "iteration-2/segmenter.safetensors")
    return folder


@pytest.fixture(scope="module")
def whole(trained: Path, others: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Run(trained).predict(
        others.images, tmp_path_factory.mktemp("whole") / "out", overlay=True, probabilities=True
    )


def test_masks_overlays_and_probabilities_of_every_readable_image(whole: Path, others: Photographs) -> None:
    names = [f"{i:02}.png" for i in range(70)]
    assert sorted(path.name for path in whole.glob("*.png")) == [f"{name}.png" for name in names]
    assert sorted(path.name for path in (whole / "overlays").iterdir()) == [f"{name}.jpg" for name in names]
    assert sorted(path.name for path in (whole / "probabilities").iterdir()) == [f"{name}.npy" for name in names]
    skipped = json.loads((whole / "predictions.json").read_text())["skipped"]
    assert [(row["image"], row["reason"]) for row in skipped] == [("broken.jpg", "unreadable")]
    for name in names[::9]:
        mask = read_mask(whole / f"{name}.png")
        probabilities = np.load(whole / f"probabilities/{name}.npy", allow_pickle=False)
        assert mask.shape == (80, 96) and probabilities.dtype == np.float16 and len(probabilities) == 4
        wide = Image.fromarray(probabilities.argmax(0).astype(np.uint8)).resize((96, 80), Image.Resampling.NEAREST)
        assert len(np.unique(mask)) > 1 and (np.asarray(wide) == mask).mean() > 0.8
        with Image.open(whole / f"overlays/{name}.jpg") as picture, Image.open(others.images / name) as image:
            expected = np.where(
                mask[:, :, None] > 0, (np.asarray(image) + make_voc_palette()[mask].astype(int)) / 2, image
            )
            assert np.abs(np.asarray(picture) - expected).mean() < 8


def test_an_overlay_tints_objects_alone_in_their_own_colour() -> None:
    pixels = np.full((64, 96, 3), 100, np.uint8)
    labels = np.zeros((64, 96), np.uint16)
    labels[:, 32:64], labels[:, 64:] = 1, 256
    picture = np.asarray(Image.open(io.BytesIO(render_overlay(pixels, labels)))).astype(int)
    for start, colour in ((0, (100, 100, 100)), (32, (114, 50, 50)), (64, (114, 50, 50))):
        assert np.abs(picture[8:-8, start + 8 : start + 24] - colour).max() <= 3


def test_what_was_killed_goes_on_to_the_same_bytes(
    whole: Path, trained: Path, others: Photographs, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    kept = output / "03.png.png"
    for pattern in ("1*.png", "overlays/2*", "probabilities/4*", "69*"):
        for path in output.glob(pattern):
            path.unlink()
    before = kept.stat().st_mtime_ns
    Run(trained, workers=3).predict(others.images, output, overlay=True, probabilities=True)
    assert tree_bytes(output) == tree_bytes(whole) and kept.stat().st_mtime_ns == before


def test_only_folders_of_masks_are_filled(trained: Path, others: Photographs, tmp_path: Path) -> None:
    images = Path(shutil.copytree(others.images, tmp_path / "images"))
    for place in (images, trained, trained / "iteration-1/masks"):
        before = tree_bytes(place)
        with pytest.raises(InputError, match=r"is there already and holds no masks of predict; choose a new --output"):
            Run(trained).predict(images, place)
        assert tree_bytes(place) == before


def test_a_second_time_nothing_is_loaded_or_written(
    whole: Path, trained: Path, others: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    monkeypatch.setattr(files, "load_segmenter", None)
    Run(trained).predict(others.images, output)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_only_windows_of_changed_images_are_done_again(
    whole: Path, trained: Path, others: Photographs, tmp_path: Path
) -> None:
    images, output = (Path(shutil.copytree(one, tmp_path / one.name)) for one in (others.images, whole))
    Run(trained).predict(images, output)  # the copies' own times of change are kept, so nothing happens
    first, last = output / "00.png.png", output / "69.png.png"
    before = first.stat().st_mtime_ns, last.read_bytes()
    shutil.copy(images / "00.png", images / "69.png")
    Run(trained).predict(images, output)
    assert first.stat().st_mtime_ns == before[0] and last.read_bytes() != before[1]
    assert not (output / "overlays/69.png.jpg").exists()  # it showed another image, and none was asked for


def test_other_settings_do_everything_again(whole: Path, trained: Path, others: Photographs, tmp_path: Path) -> None:
    output = Path(shutil.copytree(whole, tmp_path / "out"))
    Run(trained).predict(others.images, output, overlay=True, probabilities=True, flip=True)
    fresh = Run(trained).predict(others.images, tmp_path / "fresh", overlay=True, probabilities=True, flip=True)
    assert tree_bytes(output) == tree_bytes(fresh)
    assert (output / "00.png.png").read_bytes() != (whole / "00.png.png").read_bytes()


def test_qualities_lay_their_sizes_over_the_settings(trained: Path, others: Photographs, tmp_path: Path) -> None:
    def predict(inference: str, **settings: Any) -> tuple[dict[str, Any], np.ndarray]:
        made = Run(trained, inference=inference).predict([others.images / "00.png"], tmp_path / "out", **settings)
        return json.loads((made / "predictions.json").read_text()), read_mask(made / "00.png.png")

    said, mask = predict("torch", quality="fast")
    assert "inference" not in said and said["predict"]["scales"] == "0.5" and said["predict"]["follow_edges"]
    assert said["predict"]["predict_size"] == 512  # the preset's, not the 65 of this run folder
    assert predict("torch", quality="best", scales="0.5")[0]["predict"] == {
        **said["predict"],
        "scales": "0.5",
        "flip": True,
    }
    with pytest.raises(InputError, match="quality must be 'fast', 'best' or ''; got 'fastest'; did you mean fast"):
        predict("torch", quality="fastest")
    if has_openvino():
        said, by_openvino = predict("openvino", quality="fast")
        assert said["inference"] == "openvino" and (by_openvino == mask).mean() > 0.999
