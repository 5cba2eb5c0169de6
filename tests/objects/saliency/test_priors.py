"""What all three saliency priors promise; test_methods.py has them on photographs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from prior_cases import iou, otsu_mask, scene

from fastcomus.errors import InputError
from fastcomus.objects.saliency.absorbing_markov_chain import AbsorbingMarkovChain
from fastcomus.objects.saliency.background_prior import BackgroundPrior
from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier
from fastcomus.objects.saliency.prior_mean import PriorMean

PRIORS = (BackgroundPrior, MinimumBarrier, AbsorbingMarkovChain)

each_prior = pytest.mark.parametrize("make", PRIORS)
INSIDE = ((100, 150), (80, 90), (110, 220))
AT_THE_BORDER = (165, 150)  # the disc is cut by the lower border, which absorbs its walks


def assert_is_map(saliency: np.ndarray, shape: tuple[int, ...]) -> None:
    assert saliency.shape == (1, *shape) and saliency.dtype == np.float32
    assert np.isfinite(saliency).all() and saliency.min() >= 0 and saliency.max() <= 1


@pytest.mark.parametrize(
    ("make", "centre_yx"),
    [(make, centre) for make in PRIORS for centre in (*INSIDE, AT_THE_BORDER)][:-1],
)
def test_a_planted_disc_is_found(make: Callable[[], Any], centre_yx: tuple[int, int]) -> None:
    pixels, disc = scene(centre_yx)
    saliency = make()("disc.png", pixels)
    assert_is_map(saliency, (200, 300))
    assert iou(otsu_mask(saliency[0]), disc) > 0.9


@each_prior
def test_a_large_photograph_is_worked_at_reduced_size_and_found_at_its_own(make: Callable[[], Any]) -> None:
    pixels, disc = scene((100, 150))
    large = np.asarray(Image.fromarray(pixels).resize((2100, 1400), Image.Resampling.BICUBIC))
    truth = np.asarray(Image.fromarray(disc).resize((2100, 1400)))
    saliency = make()("large.png", large)[0]
    assert saliency.shape == (1400, 2100)
    assert iou(otsu_mask(saliency), truth) > 0.9


@each_prior
@pytest.mark.parametrize("flip", [np.fliplr, np.flipud])
def test_a_mirrored_image_has_the_mirrored_map(
    make: Callable[[], Any], flip: Callable[[np.ndarray], np.ndarray]
) -> None:
    pixels, _ = scene((80, 90))
    straight = make()("a", pixels)[0]
    mirrored = flip(make()("a", np.ascontiguousarray(flip(pixels)))[0])
    assert np.abs(straight - mirrored).mean() < 0.03
    assert iou(otsu_mask(straight), otsu_mask(mirrored)) > 0.88


@each_prior
def test_the_map_depends_on_its_image_alone_and_threads_do_not_matter(make: Callable[[], Any]) -> None:
    prior = make()
    images = [scene((100, 60 + 30 * i), seed=i)[0] for i in range(6)]
    alone = [make()("x", image) for image in images]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(prior, "abcdef", reversed(images)))
    for one, other in zip(alone, reversed(together), strict=True):
        np.testing.assert_array_equal(one, other)


@each_prior
@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (1, 37), (37, 1), (2, 900), (900, 2), (1, 5000), (17, 16)]
)
def test_degenerate_images(make: Callable[[], Any], shape: tuple[int, int]) -> None:
    assert_is_map(make()("thin.png", np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)), shape)
    for colour in (0, 77, 255):
        saliency = make()("one colour.png", np.full((*shape, 3), colour, dtype=np.uint8))
        assert_is_map(saliency, shape)
        assert not saliency.any()


def test_the_mean_of_the_priors_is_theirs_stretched() -> None:
    pixels, disc = scene((100, 150))
    priors = [make() for make in PRIORS]
    saliency = PriorMean(priors)("disc.png", pixels)
    assert_is_map(saliency, (200, 300))
    mean = sum(prior("disc.png", pixels) for prior in priors) / 3
    np.testing.assert_allclose(saliency, (mean - mean.min()) / np.ptp(mean), atol=1e-6)
    assert iou(otsu_mask(saliency[0]), disc) > 0.9
    assert not PriorMean(priors)("flat.png", np.full((20, 30, 3), 77, np.uint8)).any()


SMALL: list[Callable[[int], Any]] = [
    lambda number: BackgroundPrior(superpixels=number, working_side_px=24),
    lambda number: MinimumBarrier(centre_weight=float(number % 2), working_side_px=24),
    lambda number: AbsorbingMarkovChain(superpixels=number, sigma_colour=1.0, working_side_px=24),
]


@pytest.mark.parametrize("make", SMALL, ids=[make.__name__ for make in PRIORS])
@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.integers(1, 4), st.integers(0, 99))
def test_any_small_image_gives_a_finite_map_in_range(
    make: Callable[[int], Any], height: int, width: int, number: int, colours: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), dtype=np.uint8)
    pixels = palette[random.integers(0, colours, (height, width))]
    assert_is_map(make(number)("any.png", pixels), (height, width))


FIELDS: dict[type, dict[str, Any]] = {
    BackgroundPrior: {
        "superpixels": 40,
        "compactness": 5.0,
        "sigma_colour": 5.0,
        "sigma_boundary": 3.0,
        "sigma_spatial": 1.0,
        "mu": 1.0,
        "background_weight": 1.0,
        "second_neighbours": False,
        "smoothing": 0.0,
        "working_side_px": 100,
    },
    MinimumBarrier: {
        "passes": 1,
        "border_width": 0.3,
        "backgroundness": False,
        "smoothing": 0.0,
        "centre_weight": 1.0,
        "contrast": 3.0,
        "working_side_px": 100,
    },
    AbsorbingMarkovChain: {  # `middling` has a test of its own
        "superpixels": 40,
        "compactness": 5.0,
        "sigma_colour": 5.0,
        "smoothing": 0.0,
        "working_side_px": 100,
    },
}


@each_prior
def test_every_field_has_an_effect(make: Callable[[], Any]) -> None:
    pixels, _ = scene((80, 90))
    usual = make()("x", pixels)
    for field, value in FIELDS[make].items():  # type: ignore[index]
        assert np.abs(replace(make(), **{field: value})("x", pixels) - usual).max() > 1e-3, field


@pytest.mark.parametrize(
    ("make", "above_zero", "not_negative"),
    [
        (BackgroundPrior, "superpixels", "mu"),
        (MinimumBarrier, "passes", "smoothing"),
        (AbsorbingMarkovChain, "superpixels", "middling"),
    ],
)
def test_unusable_input_is_said_in_a_sentence(make: Callable[..., Any], above_zero: str, not_negative: str) -> None:
    with pytest.raises(InputError, match=f"{above_zero} must be above 0; got 0"):
        make(**{above_zero: 0})
    with pytest.raises(InputError, match=f"{not_negative} must not be negative; got -1"):
        make(**{not_negative: -1})
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="pixels must be"):
            make()("x", pixels)
