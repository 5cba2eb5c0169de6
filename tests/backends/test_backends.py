"""The CPU backend against scikit-image, Pillow, scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import planted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from places import MSRC14
from skimage import data
from skimage.filters import threshold_otsu
from sklearn.neighbors import NearestNeighbors

from fastcomus.backends import choose, interface
from fastcomus.backends.cpu import compute_otsu_threshold
from fastcomus.errors import InputError
from fastcomus.objects.saliency.background_prior import BackgroundPrior

PHOTOGRAPHS = MSRC14 / "JPEGImages"
CPU = choose.select("cpu")


# -- devices ----------------------------------------------------------------------------------------------------


def test_absent_and_nonsensical_devices_are_refused() -> None:
    assert choose.select("cpu").device == torch.device("cpu")
    for device in ("gpu", "cuda:x", "", "mps", "cpu "):
        with pytest.raises(InputError, match="device must be auto, cpu, cuda or cuda:N"):
            choose.select(device)
    with pytest.raises(InputError, match=r"--device cuda:99 was asked for and this machine has \d+ CUDA devices"):
        choose.select("cuda:99")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_never_replaced_in_silence() -> None:
    with pytest.raises(InputError, match=r"this machine has 0 CUDA devices \(\w"):  # and why
        choose.select("cuda")
    assert choose.select("auto").device.type == "cpu"


# -- masks and boxes --------------------------------------------------------------------------------------------


def assert_otsu_equals_scikit_image(levels: np.ndarray) -> None:
    """`levels`: uint8; the map is levels / 255."""
    saliency = (levels / 255).astype(np.float32)
    assert ((saliency > compute_otsu_threshold(saliency)) == (levels > threshold_otsu(levels))).all()


@settings(max_examples=60)
@given(arrays.arrays(np.uint8, (12, 15)))
def test_otsu_splits_any_map_like_scikit_image(levels: np.ndarray) -> None:
    if levels.min() < levels.max():
        assert_otsu_equals_scikit_image(levels)


@pytest.mark.parametrize("seed", range(5))
def test_otsu_splits_random_and_bimodal_maps_like_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_otsu_equals_scikit_image(rng.integers(0, 256, (60, 80), dtype=np.uint8))
    bimodal = rng.normal(np.where(rng.random((60, 80)) < 0.2, 190, 60), 15)
    assert_otsu_equals_scikit_image(bimodal.clip(0, 255).astype(np.uint8))


def test_otsu_splits_saliency_of_photographs_like_scikit_image() -> None:
    pictures = [data.astronaut()[::3, ::3], data.chelsea()[::2, ::2], data.coffee()[::3, ::3]]
    if PHOTOGRAPHS.is_dir():
        pictures += [np.array(Image.open(file).convert("RGB")) for file in sorted(PHOTOGRAPHS.iterdir())[:300:100]]
    for pixels in pictures:
        saliency = BackgroundPrior()("", np.ascontiguousarray(pixels))[0]
        assert_otsu_equals_scikit_image(np.rint(saliency * 255).astype(np.uint8))
        found = CPU.find_masks(saliency[None], "otsu", 1)
        # scikit-image takes 256 bins between the map's own ends: pixels at the threshold may fall differently.
        assert (found.masks[0] == (saliency > threshold_otsu(saliency))).mean() > 0.99


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_constant_map_has_no_object(value: float) -> None:
    found = CPU.find_masks(np.full((1, 9, 9), value, np.float32), "otsu", 1)
    assert found.masks.shape == (0, 9, 9) and found.boxes.shape == (0, 4) and not found.too_small


def test_masks_boxes_areas_and_scores_of_planted_rectangles() -> None:
    maps = np.zeros((4, 20, 30), np.float32)
    maps[0, 3:8, 4:14] = 0.8  # 50 pixels
    maps[1, :, :] = 0.6  # the whole image
    maps[2, 19, 29] = 0.9  # a single pixel in the corner
    maps[3, 0:2, 0:5] = 0.5  # at the threshold, not above it
    found = CPU.find_masks(maps, "0.5", 1)
    assert found.boxes.tolist() == [[4, 3, 14, 8], [0, 0, 30, 20], [29, 19, 30, 20]]
    assert found.areas.tolist() == [50, 600, 1]
    assert np.allclose(found.scores, [0.8, 0.6, 0.9]) and not found.too_small
    assert found.masks.dtype == bool and found.boxes.dtype == np.int32 and found.areas.dtype == np.int64
    for mask, (x0, y0, x1, y1) in zip(found.masks, found.boxes.tolist(), strict=True):
        assert mask[y0:y1, x0:x1].all() and mask.sum() == mask[y0:y1, x0:x1].sum()
    assert CPU.find_masks(maps, "0.5", 50).areas.tolist() == [50, 600]  # `min_area` itself is kept
    assert CPU.find_masks(maps, "0.5", 51).areas.tolist() == [600]


def test_masks_are_taken_as_they_are_even_full_ones() -> None:
    masks = np.zeros((3, 10, 12), bool)
    masks[0], masks[1, 2:5, 3:9] = True, True
    found = CPU.find_masks(masks, "otsu", 1)
    assert (found.masks == masks[:2]).all() and found.scores.tolist() == [1, 1]
    assert found.boxes.tolist() == [[0, 0, 12, 10], [3, 2, 9, 5]]


def test_too_small_is_told_from_nothing() -> None:
    maps = np.zeros((1, 10, 10), np.float32)
    assert not CPU.find_masks(maps, "0.5", 5).too_small
    assert not CPU.find_masks(maps[:0], "0.5", 5).too_small
    maps[0, 0, :4] = 1
    assert CPU.find_masks(maps, "0.5", 5).too_small
    assert not CPU.find_masks(maps, "0.5", 4).too_small


@settings(max_examples=40)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))), st.integers(1, 10))
def test_boxes_are_tight_around_any_mask(masks: np.ndarray, min_area: int) -> None:
    found = CPU.find_masks(masks.astype(np.float32), "0.5", min_area)
    kept = masks[masks.sum(axis=(1, 2)) >= min_area]
    assert (found.masks == kept).all() and (found.areas == kept.sum(axis=(1, 2))).all()
    for mask, box in zip(kept, found.boxes.tolist(), strict=True):
        ys, xs = np.nonzero(mask)
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


# -- crops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 100, 224])
def test_crops_equal_pillows(size: int) -> None:
    pixels = data.astronaut()
    height, width = pixels.shape[:2]
    boxes = np.array(
        [
            [100, 50, 300, 400],
            [0, 0, width, height],
            [0, 0, 20, 10],
            [width - 33, height - 7, width, height],
            [width - 1, height - 1, width, height],  # a single pixel
            [0, 200, 1, 260],
            [10, 10, 10 + size, 10 + size],
        ],
        np.int32,
    )
    crops = CPU.crop_resize(pixels, boxes, size)
    assert crops.shape == (len(boxes), 3, size, size) and crops.dtype == torch.uint8 and crops.is_contiguous()
    for crop, (x0, y0, x1, y1) in zip(crops, boxes.tolist(), strict=True):
        cut = Image.fromarray(pixels[y0:y1, x0:x1])
        theirs = np.asarray(cut.resize((size, size), Image.Resampling.BILINEAR), int)
        assert np.abs(crop.permute(1, 2, 0).numpy() - theirs).max() <= 2
    assert (crops[4] == torch.from_numpy(pixels[-1, -1]).reshape(3, 1, 1)).all()


def test_no_box_gives_no_crop_and_pixels_stay_as_they_were() -> None:
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    pixels.flags.writeable = False
    assert CPU.crop_resize(pixels, np.empty((0, 4), np.int32), 16).shape == (0, 3, 16, 16)
    assert (CPU.crop_resize(pixels, np.array([[0, 0, 10, 10]]), 10)[0].permute(1, 2, 0).numpy() == pixels).all()


# -- neighbours -------------------------------------------------------------------------------------------------


def assert_knn_equals_scikit_learns(rows: np.ndarray, n: int) -> None:
    """The same distances at every rank (so ties may differ), each row first, no row twice."""
    ours = CPU.find_neighbors(rows, n, 1.0, 0).indices
    assert ours.dtype == np.int32 and ours.shape == (len(rows), n)
    assert (ours[:, 0] == np.arange(len(rows))).all()
    assert all(len(set(row)) == n for row in ours.tolist())
    wide = rows.astype(np.float64)
    theirs, _ = NearestNeighbors(n_neighbors=n, algorithm="brute").fit(wide).kneighbors(wide)
    distances = np.sort(np.linalg.norm(wide[ours] - wide[:, None], axis=2), axis=1)
    assert np.abs(distances - theirs).max() <= 1e-4 * theirs.max()


def test_neighbours_of_planted_embeddings_equal_scikit_learns() -> None:
    rows, _ = planted.dino_like(1500, 20, 0.605)
    assert_knn_equals_scikit_learns(rows, 30)


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1, 1000), (1e-22, 0), (1e24, 0), (1e30, 1e31)])
def test_neighbours_do_not_depend_on_scale_and_mean(scale: float, shift: float) -> None:
    rows, _ = planted.gaussian(600)
    assert_knn_equals_scikit_learns((rows.astype(np.float64) * scale + shift).astype(np.float32), 10)


def test_duplicates_come_after_the_row_itself() -> None:
    rows, _ = planted.gaussian(40)
    assert_knn_equals_scikit_learns(np.repeat(rows, 6, axis=0), 4)
    assert_knn_equals_scikit_learns(np.repeat(rows, 3, axis=0), 12)
    equal = CPU.find_neighbors(np.ones((50, 4), np.float32), 5, 1.0, 0).indices
    assert (equal[:, 0] == np.arange(50)).all() and all(len(set(row)) == 5 for row in equal.tolist())


def test_as_many_neighbours_as_rows() -> None:
    rows, _ = planted.gaussian(7)
    assert (np.sort(CPU.find_neighbors(rows, 7, 1.0, 0).indices, axis=1) == np.arange(7)).all()
    assert CPU.find_neighbors(rows[:1], 1, 1.0, 0).indices.tolist() == [[0]]


# -- class maps -------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(arrays.arrays(bool, st.tuples(st.integers(0, 4), st.just(5), st.just(6))), st.data())
def test_later_masks_lie_over_earlier_ones(masks: np.ndarray, drawn: st.DataObject) -> None:
    labels = drawn.draw(st.lists(st.integers(0, 999), min_size=len(masks), max_size=len(masks)))
    expected = np.zeros((5, 6), int)
    for y in range(5):
        for x in range(6):
            for mask, label in zip(masks, labels, strict=True):
                if mask[y, x]:
                    expected[y, x] = label + 1
    (class_map,) = CPU.assemble_masks([interface.LabelledMasks(list(masks), labels, (5, 6))])
    assert class_map.dtype == np.uint16 and (class_map == expected).all()


# -- confusion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64])
def test_confusion_counts_every_pair(kind: type) -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 200, (31, 17)).astype(kind), rng.integers(0, 256, (31, 17)).astype(np.uint8)
    predicted, truth = predicted[:, ::2], truth[:, ::2]  # not in one piece
    predicted.flags.writeable = truth.flags.writeable = False  # as images are read
    expected = np.zeros((200, 256), np.int64)
    for row, column in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True):
        expected[row, column] += 1
    found = CPU.count_confusion(predicted, truth, 200)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    given = predicted.astype(np.int32)
    np.testing.assert_array_equal(CPU.count_confusion(given, truth, 200), expected)
    np.testing.assert_array_equal(given, predicted)  # nothing was written into it


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_confusion_on_the_device_is_that_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = (rng.integers(0, 200, (375, 500)).astype(np.uint8) for _ in range(2))
    on_device = choose.select("cuda").count_confusion(predicted, truth, 200)
    np.testing.assert_array_equal(on_device, CPU.count_confusion(predicted, truth, 200))
