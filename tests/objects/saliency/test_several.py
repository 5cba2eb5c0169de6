"""`--objects several`: planted objects, apart and touching, told by colour or by patch features; and none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ENCODER, Photographs
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastcomus.config import EmbedConfig
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.objects.saliency.proposer import NetworkProposer
from fastcomus.objects.saliency.several import find_several

SIDE, PATCHES = 160, 20
Y, X = np.mgrid[:SIDE, :SIDE]


def make_disc(centre: tuple[int, int], radius: int = 28) -> np.ndarray:
    return np.asarray((Y - centre[0]) ** 2 + (X - centre[1]) ** 2 < radius**2)


def plant(
    discs: list[np.ndarray], colours: list[tuple[int, int, int]], kinds: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels with discs on noise, their saliency, and patch features, of another direction for every kind."""
    random = np.random.default_rng(0)
    pixels = np.array([90.0, 130, 100]) + random.normal(0, 6, (SIDE, SIDE, 3))
    features = np.zeros((PATCHES, PATCHES, 6)) + np.eye(6)[0]
    for disc, colour, kind in zip(discs, colours, kinds, strict=True):
        pixels[disc] = np.array(colour) + random.normal(0, 6, (int(disc.sum()), 3))
        share = disc.reshape(PATCHES, SIDE // PATCHES, PATCHES, -1).mean(axis=(1, 3))[..., None]
        features += share * (np.eye(6)[kind] - np.eye(6)[0])
    saliency = np.any(discs, axis=0) if discs else np.zeros((SIDE, SIDE))
    return pixels.clip(0, 255).astype(np.uint8), saliency.astype(np.float32), features.astype(np.float32)


def find_best_overlaps(masks: np.ndarray, true: list[np.ndarray]) -> list[float]:
    return [max((mask & one).sum() / (mask | one).sum() for mask in masks) for one in true]


RED, BLUE = (210, 50, 40), (50, 60, 200)
APART = [make_disc((45, 45)), make_disc((110, 112))]
TOUCHING = [make_disc((80, 53)), make_disc((80, 107))]


@pytest.mark.parametrize(
    ("discs", "colours", "kinds"),
    [(APART, [RED, RED], [1, 1]), (TOUCHING, [RED, BLUE], [1, 1]), (TOUCHING, [RED, RED], [1, 2])],
    ids=["two parts", "told by colour", "told by features"],
)
def test_planted_objects_are_found_one_by_one(
    discs: list[np.ndarray], colours: list[tuple[int, int, int]], kinds: list[int]
) -> None:
    masks = find_several(*plant(discs, colours, kinds))
    assert min(find_best_overlaps(masks, discs)) > 0.85


def test_one_object_stays_whole() -> None:
    pixels, saliency, features = plant([make_disc((80, 80))], [RED], [1])
    masks = find_several(pixels, saliency, features)
    assert find_best_overlaps(masks[:1], [saliency > 0])[0] > 0.9
    assert len(masks) <= 3 and all(mask.mean() < 0.02 for mask in masks[1:])  # superpixels across the outline


@pytest.mark.parametrize(("kind", "found"), [(1, 1), (2, 2)], ids=["a part of it", "what lies on it"])
def test_what_lies_in_an_object_is_another_one_if_its_features_differ(kind: int, found: int) -> None:
    plate, cup = make_disc((80, 80), 55), make_disc((80, 80), 22)
    masks = [mask for mask in find_several(*plant([plate & ~cup, cup], [RED, BLUE], [1, kind])) if mask.mean() > 0.02]
    assert len(masks) == found
    assert min(find_best_overlaps(np.stack(masks), [plate, cup][:found])) > 0.75


def test_the_saliency_maps_mask_comes_before_a_half_that_stands_out_more() -> None:
    disc = make_disc((80, 80), 40)
    left, right = disc & (X < 80), disc & (X >= 80)
    masks = find_several(*plant([left, right], [RED, (120, 120, 85)], [1, 0]))
    assert find_best_overlaps(masks, [disc])[0] > 0.85


def test_without_features_what_lies_in_an_object_is_a_part_of_it() -> None:
    plate, cup = make_disc((80, 80), 55), make_disc((80, 80), 22)
    pixels, saliency, features = plant([plate & ~cup, cup], [RED, BLUE], [1, 1])
    masks = [mask for mask in find_several(pixels, saliency, features * 0) if mask.mean() > 0.02]
    assert find_best_overlaps(np.stack(masks), [cup])[0] < 0.5


def test_where_nothing_differs_there_is_no_object() -> None:
    pixels = np.full((SIDE, SIDE, 3), (90, 130, 100), np.uint8)
    flat = np.zeros((SIDE, SIDE), np.float32), np.ones((PATCHES, PATCHES, 6), np.float32)
    assert find_several(pixels, *flat).shape == (0, SIDE, SIDE)


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_any_image_gives_few_masks_that_hardly_overlap(
    height: int, width: int, patches: int, colours: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), dtype=np.uint8)
    pixels = palette[random.integers(0, colours, (height, width))]
    features = random.normal(size=(patches, patches, 4)).astype(np.float32)
    masks = find_several(pixels, random.random((height, width), np.float32), features)
    assert masks.dtype == bool and masks.shape[1:] == (height, width) and len(masks) <= 8
    assert masks.any(axis=(1, 2)).all()
    for one in range(len(masks)):
        for other in range(one):
            assert (masks[one] & masks[other]).sum() <= 0.15 * (masks[one] | masks[other]).sum() + 1e-9


@pytest.mark.parametrize("saliency", ["minimum-barrier", "tokencut"])
def test_an_image_does_not_depend_on_its_batch(saliency: str, photographs: Photographs) -> None:
    config = EmbedConfig(saliency=saliency, objects="several", **ENCODER, saliency_size=96)
    config = replace(config, saliency_precision="float32")
    proposer = load_proposer(config, torch.device("cpu"))
    assert not callable(proposer)
    several: NetworkProposer = proposer
    pixels = [np.asarray(Image.open(file)) for file in sorted(photographs.images.iterdir())[:3]]
    prepared = torch.stack([several.prepare(one) for one in pixels])
    together = several.propose(prepared)
    for one, masks in zip(prepared, together, strict=True):
        assert masks.dtype == torch.bool and 1 <= len(masks) <= 8
        np.testing.assert_array_equal(several.propose(one[None])[0], masks)
