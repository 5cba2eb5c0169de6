"""Parts of masks: small ones, and which cluster their pixels belong to, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label

from fastcomus.segmentation import class_scores
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.regions import OwnObjects, find_regions, remove_small_parts

SIDE = 64


def predict_blocks(*blocks: tuple[slice, slice, list[float]], **settings: float) -> Prediction:
    """A prediction of background, but for blocks of an image of 64 x 64 with probabilities of three clusters."""
    probabilities = torch.tensor([0.97, 0.01, 0.01, 0.01])[:, None, None].repeat(1, SIDE, SIDE)
    for rows, columns, clusters in blocks:
        probabilities[0, rows, columns] = 0.1
        probabilities[1:, rows, columns] = 0.9 * torch.tensor(clusters)[:, None, None].clamp(min=1e-6)
    return Prediction("image", (probabilities.log(),), SIDE, SIDE, 1, **settings)


BODY, FEET = (slice(8, 32), slice(8, 40)), (slice(32, 40), slice(8, 40))


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.003, 0.02, 0.2]))
def test_small_parts_and_holes_are_closed_as_scikit_image_does_it(seed: int, least: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((10, 14)) < 0.5, np.ones((2, 3))).astype(bool)
    expected = mask.copy()
    for value in (True, False):  # parts, then holes
        parts = label(expected == value, connectivity=1)
        for part in range(1, parts.max() + 1):
            if (parts == part).sum() < least * mask.size:
                expected[parts == part] = not value
    assert (remove_small_parts(mask, least) == expected).all()


def test_a_part_outvotes_its_pixels_and_two_objects_that_touch_stay_two() -> None:
    dog = (*BODY, [0.8, 0.1, 0.1]), (*FEET, [0.4, 0.6, 0.0])
    alone = predict_blocks(*dog).compute_labels()
    together = predict_blocks(*dog, region_weight=0.5).compute_labels()
    assert np.unique(alone[8:40, 8:40]).tolist() == [1, 2] and np.unique(together[8:40, 8:40]).tolist() == [1]
    assert ((alone > 0) == (together > 0)).all()
    rider = (*BODY, [0.9, 0.1, 0.0]), (*FEET, [0.0, 0.1, 0.9])
    for weight in (0.0, 0.5):
        labels = predict_blocks(*rider, region_weight=weight).compute_labels()
        assert (labels[8:32, 8:40] == 1).all() and (labels[32:40, 8:40] == 3).all()
    whole = predict_blocks(*rider, region_weight=1.0).compute_labels()
    assert (whole[8:40, 8:40] == 1).all()


def test_the_clusters_of_its_own_objects_speak_where_they_lie_and_else_in_the_whole_image() -> None:
    unsure, sure = [0.52, 0.48, 0.0], [1.0, 0.0, 0.0]
    far = (slice(50, 60), slice(50, 60))
    own = np.zeros((SIDE, SIDE), np.uint8)
    own[8:24, 8:40] = 2
    given = OwnObjects(own, cluster_weight=0.1)
    labels = predict_blocks((*BODY, unsure), (*far, unsure)).compute_labels(given)
    assert (labels[BODY] == 2).all() and (labels[far] == 2).all()
    own[52:56, 52:56] = 3  # another object
    labels = predict_blocks((*BODY, unsure), (*far, [0.48, 0.0, 0.52])).compute_labels(OwnObjects(own, 0.0, 0.1))
    assert (labels[BODY] == 2).all() and (labels[far] == 3).all()
    assert (predict_blocks((*BODY, sure)).compute_labels(given)[BODY] == 1).all()
    nothing = OwnObjects(np.zeros((SIDE, SIDE), np.uint8), cluster_weight=0.5)
    assert (predict_blocks((*BODY, unsure)).compute_labels(nothing)[BODY] == 1).all()
    labels, confidence = predict_blocks((*BODY, unsure)).compute_labels_and_confidence(given)
    assert (labels[BODY] == 2).all() and (confidence[BODY] == round(255 * 0.9 * 0.52)).all()


@pytest.mark.parametrize("weight", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("least", [0.0, 0.01])
def test_against_the_definition(weight: float, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_scores, "_BAND_VALUES", 3_000)  # several bands
    logits = 3 * torch.randn(5, 8, 10, generator=torch.Generator().manual_seed(1))
    logits[0] += 3  # several parts
    made = Prediction("image", (logits,), 57, 73, 16, region_weight=weight, least_part=least)
    own = OwnObjects(np.zeros((57, 73), np.uint8), 0.0, 0.2)
    own.class_map[20:40, 10:60] = 3
    plain = Prediction("image", (logits,), 57, 73, 16)
    probabilities = torch.cat(list(plain._enlarge_probabilities(57, 73)), dim=1).double().numpy()
    coarse = torch.cat(list(plain._enlarge_probabilities(*plain._choose_coarse_size())), dim=1).double().numpy()
    shares, few = (one[1:] / one[1:].sum(axis=0) for one in (probabilities, coarse))
    mask = remove_small_parts(plain.compute_labels() > 0, least)
    rows, columns = (
        ((np.arange(small) + 0.5) * large / small).astype(int)
        for small, large in zip(few.shape[1:], mask.shape, strict=True)
    )
    labels, sure = made.compute_labels(own), np.ones(mask.shape, bool)
    assert ((labels > 0) == mask).all()
    numbers, count = label(mask, connectivity=1, return_num=True)
    assert count > 2
    expected = np.zeros(mask.shape, np.int64)
    for part in range(1, count + 1):
        inside = numbers == part
        sampled = inside[np.ix_(rows, columns)]
        if not sampled.any():
            sure[inside] = False
            continue
        counts = np.bincount(own.class_map[inside], minlength=5)[1:]
        counts = counts if counts.any() else np.eye(4)[2]
        common = 0.8 * weight * few[:, sampled].mean(axis=1) + 0.2 * counts / counts.sum()
        scores = common[:, None] + 0.8 * (1 - weight) * shares[:, inside]
        expected[inside] = scores.argmax(axis=0) + 1
        lowest, highest = np.sort(scores, axis=0)[-2:]
        sure[inside] = highest - lowest > 1e-5
    assert sure.mean() > 0.9 and (labels == expected)[sure].all()


def test_an_image_without_a_mask_and_one_cluster() -> None:
    assert not predict_blocks(region_weight=0.5, least_part=0.001).compute_labels().any()
    logits = torch.zeros(2, 4, 4)
    logits[1, :2] = 5
    labels = Prediction("image", (logits,), 40, 40, 16, region_weight=0.5, least_part=0.001).compute_labels()
    assert set(np.unique(labels).tolist()) == {0, 1}


def test_a_part_that_no_cell_lies_in_takes_the_cell_that_it_begins_in() -> None:
    is_object = np.zeros((40, 40), bool)
    is_object[3, 5:37] = True
    probabilities = np.full((3, 4, 4), 0.2, np.float32)
    probabilities[1] = 0.6
    labels = find_regions(is_object, probabilities, 1.0, None).label_whole_parts()
    assert (labels == np.where(is_object, 2, 0)).all()
