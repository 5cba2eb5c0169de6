"""CIELAB colours against scikit-image's, the graph of superpixels against plain loops."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from prior_cases import small_case
from skimage.color import rgb2lab

from fastcomus.objects.saliency.prior_images import convert_to_cielab


def test_cielab_is_scikit_images() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    np.testing.assert_allclose(convert_to_cielab(rgb), rgb2lab(rgb), atol=0.05)


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
