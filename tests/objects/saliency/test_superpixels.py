"""CIELAB colours and superpixels against scikit-image's, the graph of superpixels against plain loops."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import skimage.data
from prior_cases import small_case
from skimage.color import rgb2lab
from skimage.segmentation import slic

from fastcomus.objects.saliency.prior_images import convert_to_cielab
from fastcomus.objects.saliency.slic import cut_superpixels


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


def test_superpixels_are_numbered_and_about_as_uniform_as_scikit_images() -> None:
    lab = convert_to_cielab(skimage.data.astronaut()[:300:2, ::2])
    labels = cut_superpixels(lab, 200, 20.0)
    count = int(labels.max()) + 1
    assert (np.bincount(labels.ravel()) > 0).all() and 150 < count < 230
    theirs = slic(lab / 100, 200, 20.0 / 100, max_num_iter=5, convert2lab=False, start_label=0, channel_axis=-1)

    def measure_spread(of: np.ndarray) -> float:
        return float(sum(((lab[of == one] - lab[of == one].mean(axis=0)) ** 2).sum() for one in np.unique(of)))

    assert measure_spread(labels) < 1.1 * measure_spread(theirs)  # of a round less


def test_superpixels_do_not_cross_a_clear_edge() -> None:
    rgb = np.full((60, 90, 3), 40, np.uint8)
    rgb[:, 37:] = 220
    labels = cut_superpixels(convert_to_cielab(rgb), 40, 20.0)
    assert not set(labels[:, :37].ravel().tolist()) & set(labels[:, 37:].ravel().tolist())
