"""Minimum barrier saliency against exact distances and the libraries' operations; test_priors.py has the rest."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_cases import iou, otsu_mask, scene
from scipy.ndimage import label
from scipy.spatial.distance import mahalanobis
from skimage.morphology import reconstruction

from fastcomus.objects.saliency import minimum_barrier as module
from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier

SIDES = st.integers(1, 9)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def test_the_barrier_alone_misses_what_touches_the_border_and_finds_the_rest() -> None:
    prior = MinimumBarrier(backgroundness=False)
    for centre_yx, is_found in [((100, 150), True), ((165, 150), False)]:
        pixels, disc = scene(centre_yx)
        assert (iou(otsu_mask(prior("disc.png", pixels)[0]), disc) > 0.9) == is_found


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


@settings(max_examples=60)
@given(SIDES, SIDES, st.integers(1, 6), st.integers(0, 999))
def test_barriers_are_those_of_real_paths_and_more_scans_find_no_worse(
    height: int, width: int, levels: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, levels, (height, width)).astype(np.float32)
    found = [module._compute_barrier_distance(values, passes) for passes in (2, 3, 20)]
    assert (found[2] >= exact_barrier(values)).all()
    assert (found[2] <= found[1]).all() and (found[1] <= found[0]).all()
    # The scans keep one path per pixel, so not all least barriers are found; most are, on noise.
    assert (found[2] == exact_barrier(values)).mean() > 0.65


def test_barriers_of_nested_frames_are_exact() -> None:
    """Frames of heights 0, 3, 1, 4 from the border inwards: what counts is the range on the way."""
    heights = np.array([0, 3, 1, 4], np.float32)
    y, x = np.mgrid[:7, :8]
    depth = np.minimum(np.minimum(y, 6 - y), np.minimum(x, 7 - x))
    found = module._compute_barrier_distance(heights[depth], 3)
    np.testing.assert_array_equal(found, np.array([0, 3, 3, 4], np.float32)[depth])


@settings(max_examples=60)
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
