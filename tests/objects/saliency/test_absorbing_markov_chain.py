"""The absorbing Markov chain against planted objects, the paper's quantities by other ways, photographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from places import MSRC14
from test_background_prior import SHAPES, iou, otsu_mask, scene, small_case

from fastcomus.errors import InputError
from fastcomus.objects.saliency import absorbing_markov_chain as module
from fastcomus.objects.saliency.absorbing_markov_chain import AbsorbingMarkovChain


@pytest.mark.parametrize("centre_yx", [(100, 150), (80, 90), (110, 220)])
def test_a_planted_disc_is_found(centre_yx: tuple[int, int]) -> None:
    pixels, disc = scene(centre_yx)
    saliency = AbsorbingMarkovChain()("disc.png", pixels)
    assert saliency.shape == (1, 200, 300) and saliency.dtype == np.float32
    assert iou(otsu_mask(saliency[0]), disc) > 0.9


def test_a_large_photograph_is_worked_at_reduced_size_and_found_at_its_own() -> None:
    pixels, disc = scene((100, 150))
    large = np.asarray(Image.fromarray(pixels).resize((2100, 1400), Image.Resampling.BICUBIC))
    truth = np.asarray(Image.fromarray(disc).resize((2100, 1400)))
    saliency = AbsorbingMarkovChain()("large.png", large)[0]
    assert saliency.shape == (1400, 2100)
    assert iou(otsu_mask(saliency), truth) > 0.9


@pytest.mark.parametrize("flip", [np.fliplr, np.flipud])
def test_a_mirrored_image_has_the_mirrored_map(flip: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels, _ = scene((80, 90))
    prior = AbsorbingMarkovChain()
    straight = prior("a", pixels)[0]
    mirrored = flip(prior("a", np.ascontiguousarray(flip(pixels)))[0])
    assert np.abs(straight - mirrored).mean() < 0.03
    assert iou(otsu_mask(straight), otsu_mask(mirrored)) > 0.9


def test_the_map_depends_on_its_image_alone_and_threads_do_not_matter() -> None:
    prior = AbsorbingMarkovChain()
    images = [scene((100, 60 + 30 * i), seed=i)[0] for i in range(6)]
    alone = [AbsorbingMarkovChain()("x", image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(prior, "abcdef", reversed(images)))
    for one, other in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", ["random", 0, 77, 255])
def test_degenerate_images(shape: tuple[int, int], colour: str | int) -> None:
    if colour == "random":
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    else:
        pixels = np.full((*shape, 3), colour, dtype=np.uint8)
    saliency = AbsorbingMarkovChain()("thin.png", pixels)
    assert saliency.shape == (1, *shape) and saliency.dtype == np.float32
    assert np.isfinite(saliency).all() and saliency.min() >= 0 and saliency.max() <= 1
    if colour != "random":
        assert not saliency.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 4), st.integers(0, 99))
def test_any_small_image_gives_a_finite_map_in_range(
    height: int, width: int, superpixels: int, colours: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), dtype=np.uint8)
    pixels = palette[random.integers(0, colours, (height, width))]
    prior = AbsorbingMarkovChain(superpixels=superpixels, sigma_colour=1.0, working_side_px=24)
    saliency = prior("any.png", pixels)
    assert saliency.shape == (1, height, width) and saliency.dtype == np.float32
    assert np.isfinite(saliency).all() and saliency.min() >= 0 and saliency.max() <= 1


def test_saliency_is_the_papers_chain_walked_step_by_step() -> None:
    _, _, regions = small_case()
    count, sigma = 30, 7.0
    border = [i for i in range(count) if i // 6 in (0, 4) or i % 6 in (0, 5)]

    def is_near(i: int, j: int) -> bool:
        return abs(i // 6 - j // 6) + abs(i % 6 - j % 6) <= 2

    affinity = np.zeros((count, count + len(border)))
    for i in range(count):
        for j in range(count):
            if is_near(i, j) or (i in border and j in border):
                affinity[i, j] = math.exp(-regions.colour_distance[i, j] / sigma)
        for double, j in enumerate(border):
            if is_near(i, j):
                affinity[i, count + double] = math.exp(-regions.colour_distance[i, j] / sigma)
    moves = (affinity / affinity.sum(axis=1, keepdims=True))[:, :count]

    expected_steps, still_walking = np.zeros(count), np.ones(count)
    while still_walking.max() > 1e-12:
        expected_steps += still_walking
        still_walking = moves @ still_walking
    expected = (expected_steps - expected_steps.min()) / np.ptp(expected_steps)
    got = AbsorbingMarkovChain(sigma_colour=sigma, middling=5.0)._compute_saliency(regions)
    np.testing.assert_allclose(got, expected, atol=1e-6)

    # The update: every step counts as long as a walk without end would take to come back there.
    endless = affinity[:, :count] / affinity[:, :count].sum(axis=1, keepdims=True)
    visits = np.full(count, 1 / count)
    for _ in range(3000):
        visits = visits @ endless
    weighted, weight_left = np.zeros(count), 1 / visits
    while weight_left.max() > 1e-12:
        weighted += weight_left
        weight_left = moves @ weight_left
    expected = (weighted - weighted.min()) / np.ptp(weighted)
    got = AbsorbingMarkovChain(sigma_colour=sigma, middling=0.0)._compute_saliency(regions)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_middling_share_tells_clear_maps_from_unclear_ones() -> None:
    assert module._score_middling_share(np.array([0.0, 0.05, 1.0, 0.97])) == pytest.approx(1.0)
    assert module._score_middling_share(np.array([0.45, 0.55])) == pytest.approx(5.0)
    assert module._score_middling_share(np.array([0.0, 0.15, 0.85, 0.25])) == pytest.approx((1 + 2 + 2 + 3) / 4)


def test_the_update_darkens_smooth_background_that_the_border_does_not_reach() -> None:
    """A noisy frame around a smooth grey field with a red disc in it: the field is not the object."""
    random = np.random.default_rng(4)
    pixels = random.integers(60, 200, (200, 300, 1)).repeat(3, axis=2)
    pixels[30:170, 30:270] = (128, 140, 120)
    y, x = np.mgrid[:200, :300]
    disc = (y - 100) ** 2 + (x - 150) ** 2 < 35**2
    pixels[disc] = (random.normal((190, 60, 60), 30, (int(disc.sum()), 3))).clip(0, 255)
    field = np.zeros_like(disc)
    field[40:160, 40:260] = True
    field &= (y - 100) ** 2 + (x - 150) ** 2 > 50**2
    contrasts = []
    for middling in (0.0, 5.0):  # always, never
        saliency = AbsorbingMarkovChain(middling=middling)("field.png", pixels.astype(np.uint8))[0]
        contrasts.append(saliency[disc].mean() - saliency[field].mean())
    assert contrasts[0] > contrasts[1] > 0


@pytest.mark.parametrize(
    "field, value",
    [
        ("superpixels", 40),
        ("compactness", 5.0),
        ("sigma_colour", 5.0),
        ("smoothing", 0.0),
        ("working_side_px", 100),
    ],
)
def test_every_other_field_has_an_effect(field: str, value: Any) -> None:
    pixels, _ = scene((80, 90))
    changed = replace(AbsorbingMarkovChain(), **{field: value})("x", pixels)
    assert np.abs(changed - AbsorbingMarkovChain()("x", pixels)).max() > 1e-3


def test_unusable_input_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="superpixels must be above 0; got 0"):
        AbsorbingMarkovChain(superpixels=0)
    with pytest.raises(InputError, match="middling must not be negative; got -1"):
        AbsorbingMarkovChain(middling=-1)
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="pixels must be"):
            AbsorbingMarkovChain()("x", pixels)


@pytest.mark.skipif(not MSRC14.is_dir(), reason="the photographs of msrc14 are not here")
def test_objects_in_photographs_are_found() -> None:
    names = (MSRC14 / "objects.txt").read_text().split()[::25]
    prior = AbsorbingMarkovChain()
    scores = []
    for name in names:
        pixels = np.asarray(Image.open(MSRC14 / "JPEGImages" / f"{name}.jpg").convert("RGB"))
        truth = np.asarray(Image.open(MSRC14 / "Saliency" / f"{name}.png")) > 127
        scores.append(iou(otsu_mask(prior(name, pixels)[0]), truth))
    assert len(scores) == 20
    assert np.mean(scores) > 0.45
