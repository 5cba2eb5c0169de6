"""Robust background detection against planted objects, the paper's equations in plain loops, photographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from places import MSRC14
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu

from fastcomus.errors import InputError
from fastcomus.objects.saliency import background_prior as module
from fastcomus.objects.saliency.background_prior import BackgroundPrior
from fastcomus.objects.saliency.superpixels import Regions, convert_to_cielab, measure_regions


def otsu_mask(saliency: np.ndarray) -> np.ndarray:
    return saliency > threshold_otsu(saliency)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def scene(centre_yx: tuple[int, int], radius: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A red disc over grey-green noise with a shading, 200 x 300."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :300]
    pixels = np.array([90.0, 130.0, 100.0]) + (0.1 * x)[..., None] + random.normal(0, 12, (200, 300, 3))
    disc = (y - centre_yx[0]) ** 2 + (x - centre_yx[1]) ** 2 < radius**2
    pixels[disc] = (200, 40, 40)
    return pixels.clip(0, 255).astype(np.uint8), disc


@pytest.mark.parametrize("centre_yx", [(100, 150), (80, 90), (110, 220), (165, 150)])
def test_a_planted_disc_is_found(centre_yx: tuple[int, int]) -> None:
    """The last one is cut by the lower border."""
    pixels, disc = scene(centre_yx)
    saliency = BackgroundPrior()("disc.png", pixels)
    assert saliency.shape == (1, 200, 300) and saliency.dtype == np.float32
    assert iou(otsu_mask(saliency[0]), disc) > 0.9


def test_a_large_photograph_is_worked_at_reduced_size_and_found_at_its_own() -> None:
    pixels, disc = scene((100, 150))
    large = np.asarray(Image.fromarray(pixels).resize((2100, 1400), Image.Resampling.BICUBIC))
    truth = np.asarray(Image.fromarray(disc).resize((2100, 1400)))
    saliency = BackgroundPrior()("large.png", large)[0]
    assert saliency.shape == (1400, 2100)
    assert iou(otsu_mask(saliency), truth) > 0.9


@pytest.mark.parametrize("flip", [np.fliplr, np.flipud])
def test_a_mirrored_image_has_the_mirrored_map(flip: Callable[[np.ndarray], np.ndarray]) -> None:
    pixels, _ = scene((80, 90))
    prior = BackgroundPrior()
    straight = prior("a", pixels)[0]
    mirrored = flip(prior("a", np.ascontiguousarray(flip(pixels)))[0])
    assert np.abs(straight - mirrored).mean() < 0.03
    assert iou(otsu_mask(straight), otsu_mask(mirrored)) > 0.9


def test_the_map_depends_on_its_image_alone_and_threads_do_not_matter() -> None:
    prior = BackgroundPrior()
    images = [scene((100, 60 + 30 * i), seed=i)[0] for i in range(6)]
    alone = [BackgroundPrior()("x", image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(prior, "abcdef", reversed(images)))
    for one, other in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(one, other)


SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (1, 37), (37, 1), (2, 900), (900, 2), (1, 5000), (17, 16)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", ["random", 0, 77, 255])
def test_degenerate_images(shape: tuple[int, int], colour: str | int) -> None:
    if colour == "random":
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    else:
        pixels = np.full((*shape, 3), colour, dtype=np.uint8)
    saliency = BackgroundPrior()("thin.png", pixels)
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
    prior = BackgroundPrior(superpixels=superpixels, working_side_px=24)
    saliency = prior("any.png", pixels)
    assert saliency.shape == (1, height, width)
    assert np.isfinite(saliency).all() and saliency.min() >= 0 and saliency.max() <= 1


def test_cielab_is_scikit_images() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    np.testing.assert_allclose(convert_to_cielab(rgb), rgb2lab(rgb), atol=0.05)


def small_case() -> tuple[np.ndarray, np.ndarray, Regions]:
    """A 5 x 6 grid of superpixels of 4 x 4 pixels in random colours."""
    random = np.random.default_rng(3)
    labels = np.kron(np.arange(30).reshape(5, 6), np.ones((4, 4), dtype=int))
    lab = (random.normal(0, 8, (30, 3))[labels] + random.normal(0, 1, (20, 24, 3))).astype(np.float32)
    return lab, labels, measure_regions(lab, labels)


def test_regions_are_those_of_plain_loops() -> None:
    lab, labels, regions = small_case()
    colours = [lab[labels == i].astype(float).mean(axis=0) for i in range(30)]
    for i, j in product(range(30), repeat=2):
        steps = abs(i // 6 - j // 6) + abs(i % 6 - j % 6)
        both_border = all(n // 6 in (0, 4) or n % 6 in (0, 5) for n in (i, j))
        assert regions.touching[i, j] == (steps == 1)
        assert regions.linked[i, j] == (i != j and (steps == 1 or both_border))
        assert regions.colour_distance[i, j] == pytest.approx(math.dist(colours[i], colours[j]), abs=1e-5)
    expected = [((i // 6 + 0.5) / 5, (i % 6 + 0.5) / 6) for i in range(30)]
    np.testing.assert_allclose(regions.position, expected)
    assert regions.on_border.sum() == 18


def test_the_papers_quantities_are_those_of_plain_loops() -> None:
    _, _, regions = small_case()
    count, sigma_clr, sigma_bnd, sigma_spa = 30, 7.0, 1.3, 0.3

    geodesic = [[0.0 if i == j else math.inf for j in range(count)] for i in range(count)]
    for source in range(count):  # Bellman-Ford, another way than the module's
        for _ in range(count):
            for i, j in product(range(count), repeat=2):
                if regions.linked[i, j]:
                    through = geodesic[source][i] + float(regions.colour_distance[i, j])
                    geodesic[source][j] = min(geodesic[source][j], through)
    got_geodesic = module._compute_geodesic_distance(regions.colour_distance, regions.linked)
    np.testing.assert_allclose(got_geodesic, geodesic, atol=1e-4)

    background = []
    for i in range(count):
        belongs = [math.exp(-(geodesic[i][j] ** 2) / (2 * sigma_clr**2)) for j in range(count)]
        area = sum(belongs)
        length = sum(b for b, border in zip(belongs, regions.on_border, strict=True) if border)
        background.append(1 - math.exp(-((length / math.sqrt(area)) ** 2) / (2 * sigma_bnd**2)))
    connectivity = module._compute_boundary_connectivity(got_geodesic, regions.on_border, sigma_clr)
    got_background = module._compute_background_probability(connectivity, sigma_bnd)
    np.testing.assert_allclose(got_background, background, atol=1e-5)

    contrast = [
        sum(
            float(regions.colour_distance[i, j])
            * math.exp(-(math.dist(regions.position[i], regions.position[j]) ** 2) / (2 * sigma_spa**2))
            * background[j]
            for j in range(count)
        )
        for i in range(count)
    ]
    got_contrast = module._compute_weighted_contrast(regions, got_background, sigma_spa)
    np.testing.assert_allclose(got_contrast, contrast, rtol=1e-4)


def test_the_optimum_is_where_the_papers_cost_is_least() -> None:
    _, _, regions = small_case()
    random = np.random.default_rng(5)
    background, foreground = random.random(30), random.random(30)
    weights = module._compute_smoothness(regions.colour_distance, regions.linked, 10.0, 0.1)
    best = module._find_optimum(background, foreground, weights)

    def cost(s: np.ndarray) -> float:
        total = sum(background[i] * s[i] ** 2 + foreground[i] * (s[i] - 1) ** 2 for i in range(30))
        for i, j in product(range(30), repeat=2):
            if i < j and regions.linked[i, j]:
                weight = math.exp(-(regions.colour_distance[i, j] ** 2) / (2 * 10.0**2)) + 0.1
                total += weight * (s[i] - s[j]) ** 2
        return float(total)

    for i in range(30):
        step = np.zeros(30)
        step[i] = 1e-3
        assert abs(cost(best + step) - cost(best - step)) / 2e-3 < 1e-6  # the gradient
        assert cost(best + step) > cost(best) and cost(best - step) > cost(best)
    assert best.min() >= 0 and best.max() <= 1


def test_second_neighbours_are_neighbours_of_touching_superpixels() -> None:
    _, _, regions = small_case()
    joined = module._with_second_neighbours(regions)
    for i, j in product(range(30), repeat=2):
        near = 1 <= abs(i // 6 - j // 6) + abs(i % 6 - j % 6) <= 2
        assert joined[i, j] == (near or regions.linked[i, j])


@pytest.mark.parametrize(
    "field, value",
    [
        ("superpixels", 40),
        ("compactness", 5.0),
        ("sigma_colour", 5.0),
        ("sigma_boundary", 3.0),
        ("sigma_spatial", 1.0),
        ("mu", 1.0),
        ("background_weight", 1.0),
        ("second_neighbours", False),
        ("smoothing", 0.0),
        ("working_side_px", 100),
    ],
)
def test_every_field_has_an_effect(field: str, value: Any) -> None:
    pixels, _ = scene((80, 90))
    changed = replace(BackgroundPrior(), **{field: value})("x", pixels)
    assert np.abs(changed - BackgroundPrior()("x", pixels)).max() > 1e-3


def test_unusable_input_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="superpixels must be above 0; got 0"):
        BackgroundPrior(superpixels=0)
    with pytest.raises(InputError, match="mu must not be negative; got -1"):
        BackgroundPrior(mu=-1)
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="pixels must be"):
            BackgroundPrior()("x", pixels)


@pytest.mark.skipif(not MSRC14.is_dir(), reason="the photographs of msrc14 are not here")
def test_objects_in_photographs_are_found() -> None:
    names = (MSRC14 / "objects.txt").read_text().split()[::25]
    prior = BackgroundPrior()
    scores = []
    for name in names:
        pixels = np.asarray(Image.open(MSRC14 / "JPEGImages" / f"{name}.jpg").convert("RGB"))
        truth = np.asarray(Image.open(MSRC14 / "Saliency" / f"{name}.png")) > 127
        scores.append(iou(otsu_mask(prior(name, pixels)[0]), truth))
    assert len(scores) == 20
    assert np.mean(scores) > 0.5
