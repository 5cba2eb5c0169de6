"""Minimum barrier saliency against planted objects, exact distances, the libraries' operations, photographs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from places import MSRC14
from scipy.ndimage import label
from scipy.spatial.distance import mahalanobis
from skimage.morphology import reconstruction
from test_background_prior import SHAPES, iou, otsu_mask, scene

from fastcomus.errors import InputError
from fastcomus.objects.saliency import minimum_barrier as module
from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier

SIDES = st.integers(1, 9)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize("centre_yx", [(100, 150), (80, 90), (110, 220), (165, 150)])
def test_a_planted_disc_is_found(centre_yx: tuple[int, int]) -> None:
    """The last one is cut by the lower border."""
    pixels, disc = scene(centre_yx)
    saliency = MinimumBarrier()("disc.png", pixels)
    assert saliency.shape == (1, 200, 300) and saliency.dtype == np.float32
    assert iou(otsu_mask(saliency[0]), disc) > 0.9


def test_the_barrier_alone_misses_what_touches_the_border_and_finds_the_rest() -> None:
    prior = MinimumBarrier(backgroundness=False)
    for centre_yx, is_found in [((100, 150), True), ((165, 150), False)]:
        pixels, disc = scene(centre_yx)
        assert (iou(otsu_mask(prior("disc.png", pixels)[0]), disc) > 0.9) == is_found


def test_a_large_photograph_is_worked_at_reduced_size_and_found_at_its_own() -> None:
    pixels, disc = scene((100, 150))
    large = np.asarray(Image.fromarray(pixels).resize((2100, 1400), Image.Resampling.BICUBIC))
    truth = np.asarray(Image.fromarray(disc).resize((2100, 1400)))
    saliency = MinimumBarrier()("large.png", large)[0]
    assert saliency.shape == (1400, 2100)
    assert iou(otsu_mask(saliency), truth) > 0.9


def test_the_map_depends_on_its_image_alone_and_threads_do_not_matter() -> None:
    prior = MinimumBarrier()
    images = [scene((100, 60 + 30 * i), seed=i)[0] for i in range(6)]
    alone = [MinimumBarrier()("x", image) for image in images]
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
    saliency = MinimumBarrier()("thin.png", pixels)
    assert saliency.shape == (1, *shape) and saliency.dtype == np.float32
    assert np.isfinite(saliency).all() and saliency.min() >= 0 and saliency.max() <= 1
    if colour != "random":
        assert not saliency.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_any_small_image_gives_a_finite_map_in_range(
    height: int, width: int, colours: int, centred: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (colours, 3), dtype=np.uint8)
    pixels = palette[random.integers(0, colours, (height, width))]
    prior = MinimumBarrier(centre_weight=float(centred), working_side_px=24)
    saliency = prior("any.png", pixels)
    assert saliency.shape == (1, height, width) and saliency.dtype == np.float32
    assert np.isfinite(saliency).all() and saliency.min() >= 0 and saliency.max() <= 1


def exact_barrier(values: np.ndarray) -> np.ndarray:
    """Least barrier to the border: for every range of values, what hangs together with the border inside it."""
    border = np.ones(values.shape, dtype=bool)
    border[1:-1, 1:-1] = False
    least = np.full(values.shape, np.inf)
    for low in np.unique(values):
        for high in np.unique(values[values >= low]):
            parts, _ = label((values >= low) & (values <= high), CROSS)
            reached = np.isin(parts, parts[border & (parts > 0)]) & (parts > 0)
            least[reached] = np.minimum(least[reached], high - low)
    return least


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 6), st.integers(0, 999))
def test_barriers_are_those_of_real_paths_and_more_scans_find_no_worse(
    height: int, width: int, levels: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (height, width)).astype(np.float32)
    found = [module._compute_barrier_distance(values, passes) for passes in (2, 3, 20)]
    assert (found[2] >= exact_barrier(values)).all()
    assert (found[2] <= found[1]).all() and (found[1] <= found[0]).all()
    # The scans keep one path per pixel, so not all least barriers are found; nearly all are.
    assert (found[2] == exact_barrier(values)).mean() > 0.8


def test_barriers_of_nested_frames_are_exact() -> None:
    """Frames of heights 0, 3, 1, 4 from the border inwards: what counts is the range on the way."""
    heights = np.array([0, 3, 1, 4], np.float32)
    y, x = np.mgrid[:7, :8]
    depth = np.minimum(np.minimum(y, 6 - y), np.minimum(x, 7 - x))
    found = module._compute_barrier_distance(heights[depth], 3)
    np.testing.assert_array_equal(found, np.array([0, 3, 3, 4], np.float32)[depth])


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 9), st.integers(0, 999))
def test_reconstruction_is_scikit_images(height: int, width: int, levels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    ceiling = random.integers(0, levels, (height, width)).astype(np.float32)
    marker = np.minimum(ceiling, random.integers(0, levels, (height, width)).astype(np.float32))
    np.testing.assert_array_equal(
        module._reconstruct(marker, ceiling), reconstruction(marker, ceiling, "dilation", CROSS)
    )


def test_evening_removes_small_spots_and_keeps_the_edges_of_large_ones() -> None:
    y, x = np.mgrid[:60, :80]
    large = ((y - 30) ** 2 + (x - 40) ** 2 < 20**2).astype(np.float32)
    spotted = large.copy()
    spotted[28:31, 38:41] = 0
    spotted[3:6, 3:6] = 1
    np.testing.assert_array_equal(module._remove_narrow_spots(spotted, 7), large)


def test_border_colour_distance_is_scipys_mahalanobis_distance() -> None:
    lab = np.random.default_rng(2).normal((50, 5, -10), (20, 5, 9), (20, 30, 3)).astype(np.float32)
    maps = []
    for strip in (lab[:2], lab[-2:], lab[:, :3], lab[:, -3:]):
        colours = strip.reshape(-1, 3)
        inverse = np.linalg.inv(np.cov(colours.T, bias=True) + np.eye(3))
        distances = [mahalanobis(colour, colours.mean(axis=0), inverse) for colour in lab.reshape(-1, 3)]
        maps.append(np.reshape(distances, (20, 30)) / max(distances))
    expected = sum(maps) - np.max(maps, axis=0)
    np.testing.assert_allclose(module._compute_border_colour_distance(lab, 0.1), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "field, value",
    [
        ("passes", 1),
        ("border_width", 0.3),
        ("backgroundness", False),
        ("smoothing", 0.0),
        ("centre_weight", 1.0),
        ("contrast", 3.0),
        ("working_side_px", 100),
    ],
)
def test_every_field_has_an_effect(field: str, value: Any) -> None:
    pixels, _ = scene((80, 90))
    changed = replace(MinimumBarrier(), **{field: value})("x", pixels)
    assert np.abs(changed - MinimumBarrier()("x", pixels)).max() > 1e-3


def test_unusable_input_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="passes must be above 0; got 0"):
        MinimumBarrier(passes=0)
    with pytest.raises(InputError, match="smoothing must not be negative; got -1"):
        MinimumBarrier(smoothing=-1)
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="pixels must be"):
            MinimumBarrier()("x", pixels)


@pytest.mark.skipif(not MSRC14.is_dir(), reason="the photographs of msrc14 are not here")
def test_objects_in_photographs_are_found() -> None:
    names = (MSRC14 / "objects.txt").read_text().split()[::25]
    prior = MinimumBarrier()
    scores = []
    for name in names:
        pixels = np.asarray(Image.open(MSRC14 / "JPEGImages" / f"{name}.jpg").convert("RGB"))
        truth = np.asarray(Image.open(MSRC14 / "Saliency" / f"{name}.png")) > 127
        scores.append(iou(otsu_mask(prior(name, pixels)[0]), truth))
    assert len(scores) == 20
    assert np.mean(scores) > 0.5
