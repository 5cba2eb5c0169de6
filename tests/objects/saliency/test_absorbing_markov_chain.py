"""The absorbing Markov chain against the paper's quantities computed in other ways; test_priors.py has the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from prior_cases import small_case

from fastcomus.objects.saliency import absorbing_markov_chain as module
from fastcomus.objects.saliency.absorbing_markov_chain import AbsorbingMarkovChain


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
