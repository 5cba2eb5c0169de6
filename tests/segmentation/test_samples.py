"""What training reads: pixels and labels as they are, doubtful pixels left out, misfits told before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Photographs
from PIL import Image

from fastcomus import Run
from fastcomus.backends.choose import select
from fastcomus.errors import InputError
from fastcomus.networks.augmentation import ReadSample
from fastcomus.segmentation.samples import Sample, SampleCache, check_samples, make_sample_reader
from fastcomus.segmentation.strips import IGNORED
from fastcomus.store.masks import write_class_map, write_grey
from fastcomus.store.run_folder import RunFolder

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
LABELS = np.random.default_rng(1).integers(0, 4, (30, 40)).astype(np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    made = RunFolder(tmp_path / "run")
    write_class_map(made, "iteration-0/masks/a.png.png", LABELS)
    return made


def reader(folder: RunFolder, k: int = 3, min_confidence: float = 0.0, cache_bytes: float = 0.0) -> ReadSample:
    samples = [Sample(folder.path.parent / "a.png", "iteration-0/masks/a.png.png", "iteration-0/confidence/a.png.png")]
    return make_sample_reader(samples, k, min_confidence, 10_000, cache_bytes, folder, select("cpu"))


def test_pixels_and_labels_are_what_the_files_hold(folder: RunFolder) -> None:
    pixels, labels = reader(folder)(0)
    np.testing.assert_array_equal(pixels, PIXELS)
    np.testing.assert_array_equal(labels, LABELS)


def test_doubtful_pixels_are_ignored(folder: RunFolder) -> None:
    confidence = np.random.default_rng(2).integers(0, 256, LABELS.shape).astype(np.uint8)
    write_grey(folder, "iteration-0/confidence/a.png.png", confidence)
    _, labels = reader(folder, min_confidence=0.6)(0)
    np.testing.assert_array_equal(labels, np.where(confidence < 153, IGNORED, LABELS.astype(int)))
    np.testing.assert_array_equal(reader(folder)(0)[1], LABELS)


def test_a_label_above_k(folder: RunFolder) -> None:
    with pytest.raises(InputError, match=r"a\.png\.png has the label 3 where k = 2 allows 0 to 2"):
        check_samples(reader(folder, k=2), [0], 1, lambda count: None)


def test_a_mask_of_another_size(folder: RunFolder) -> None:
    write_class_map(folder, "iteration-0/masks/a.png.png", LABELS[:20])
    with pytest.raises(InputError, match=r"a\.png is 40 x 30 pixels and .*a\.png\.png 40 x 20"):
        check_samples(reader(folder), [0], 1, lambda count: None)


@pytest.mark.parametrize("gone", ["a.png", "run/iteration-0/masks/a.png.png"])
def test_a_file_that_is_gone(gone: str, folder: RunFolder) -> None:
    (folder.path.parent / gone).unlink()
    with pytest.raises(InputError, match=Path(gone).name):
        check_samples(reader(folder), [0], 1, lambda count: None)


def test_misfits_end_training_before_the_first_step(run_copy: Path, photographs: Photographs) -> None:
    shutil.rmtree(run_copy / "iteration-1")
    masks = sorted((run_copy / "iteration-0/masks").iterdir())
    for mask in masks:
        Image.fromarray(np.asarray(Image.open(mask))[:50]).save(mask)
    with pytest.raises(InputError, match=r"96 x 80 pixels and .* 96 x 50; run fastcomus embed again"):
        Run(run_copy, device="cpu").train(iterations=1)
    assert not (run_copy / "iteration-1/checkpoint.pt").exists()


def test_samples_that_fit_are_read_once() -> None:
    seen: list[int] = []

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        seen.append(index)
        return np.full((10, 10, 3), index, np.uint8), np.full((10, 10), index, np.uint16)

    cached = SampleCache(read, limit_bytes=1200)  # two of 500 bytes each
    for _ in range(3):
        for index in range(4):
            pixels, class_map = cached(index)
            assert (pixels == index).all() and (class_map == index).all()
    assert seen == [0, 1, 2, 3, 2, 3, 2, 3]
