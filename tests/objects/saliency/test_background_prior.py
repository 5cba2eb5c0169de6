"""Robust background detection against the paper's equations in plain loops; test_priors.py has the rest."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from prior_cases import small_case

from fastcomus.objects.saliency import background_prior as module


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
    got_geodesic = module._compute_geodesic_distance(regions.colour_distance, regions.linked, np.inf)
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
