"""The guided filter against its definition, on a planted outline, and in predictions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from fastcomus.networks.edges import GRID, choose_grid, fit_to_edges
from fastcomus.segmentation.class_scores import Prediction

REACH = 0.125


def fit_one(coarse: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return fit_to_edges(coarse[None], image[None], REACH)[0]


def measure_iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_linear_functions_are_those_of_the_definition() -> None:
    """On an image that is its own grid: ridge regression in every window, the functions averaged over windows."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (12, 20, 3), np.uint8)
    coarse = random.random((12, 20), np.float32)
    colours = pixels.reshape(12, 20, 3) / 255
    functions = np.zeros((12, 20, 4))

    def window(row: int, column: int) -> tuple[slice, slice]:  # an eighth of 12 rows: two cells to each side
        return slice(max(0, row - 2), row + 3), slice(max(0, column - 2), column + 3)

    for row, column in np.ndindex(12, 20):
        inside, values = colours[window(row, column)].reshape(-1, 3), coarse[window(row, column)].ravel()
        centred = inside - inside.mean(0)
        spread = centred.T @ centred / len(inside) + 1e-4 * np.eye(3)
        slope = np.linalg.solve(spread, centred.T @ (values - values.mean()) / len(inside))
        functions[row, column] = *slope, values.mean() - slope @ inside.mean(0)
    expected = np.zeros((12, 20))
    for row, column in np.ndindex(12, 20):
        mean = functions[window(row, column)].reshape(-1, 4).mean(0)
        expected[row, column] = mean[:3] @ colours[row, column] + mean[3]
    found = fit_one(torch.from_numpy(coarse), torch.from_numpy(pixels).permute(2, 0, 1))
    np.testing.assert_allclose(found.numpy(), expected.clip(0, 1), atol=2e-3)


def test_an_outline_known_to_sixteen_pixels_comes_to_lie_on_the_edge() -> None:
    rows, columns = np.mgrid[:300, :400]
    disc = (rows - 140) ** 2 + (columns - 190) ** 2 < 80**2
    pixels = np.where(disc[..., None], (200, 120, 40), (60, 110, 160)).astype(np.float64)
    pixels = (pixels + np.random.default_rng(1).normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    shifted = (rows - 150) ** 2 + (columns - 197) ** 2 < 86**2  # as a network on coarse cells has it
    grid = choose_grid(300, 400)
    assert min(grid) == GRID and grid[1] == round(400 * GRID / 300)
    coarse = torch.nn.functional.interpolate(torch.from_numpy(shifted)[None, None].float(), grid, mode="area")[0, 0]
    found = fit_one(coarse, torch.from_numpy(pixels).permute(2, 0, 1)).numpy()
    assert found.shape == (300, 400)
    assert measure_iou(shifted, disc) < 0.82 and measure_iou(found > 0.5, disc) > 0.93


def test_where_the_image_shows_nothing_the_map_is_only_smoothed() -> None:
    flat = torch.full((3, 50, 90), 77, dtype=torch.uint8)
    coarse = torch.rand(choose_grid(50, 90), generator=torch.Generator().manual_seed(0))
    found = fit_one(coarse, flat)
    assert found.shape == (50, 90) and coarse.min() < found.min() and found.max() < coarse.max()
    assert float(found.mean()) == pytest.approx(float(coarse.mean()), abs=0.02)
    noise = torch.randint(0, 256, (3, 50, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    same = fit_one(torch.full(choose_grid(50, 90), 0.3), noise)
    torch.testing.assert_close(same, torch.full((50, 90), 0.3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [1, 2, 300])
def test_any_shape_of_image(side: int) -> None:
    image = torch.randint(0, 256, (3, side, 300), dtype=torch.uint8)
    found = fit_one(torch.rand(choose_grid(side, 300)), image)
    assert found.shape == (side, 300) and 0 <= float(found.min()) <= float(found.max()) <= 1


@pytest.mark.parametrize("sizes", [1, 2])
def test_only_the_share_of_the_background_follows_edges(sizes: int) -> None:
    random = torch.Generator().manual_seed(3)
    logits = tuple(2 * torch.randn(5, *size, generator=random) for size in ((9, 13), (14, 20))[:sizes])
    guide = torch.from_numpy(np.ascontiguousarray(data.astronaut()[:209, :305])).permute(2, 0, 1)
    without = Prediction("image", logits, 120, 175, 16)
    following = Prediction("image", logits, 120, 175, 16, guide=guide)
    labels, confidence = following.compute_labels_and_confidence()
    assert (labels == following.compute_labels()).all()
    assert 0.02 < (labels != without.compute_labels()).mean() < 0.5
    before, after = (one.compute_probabilities().astype(np.float64) for one in (without, following))
    np.testing.assert_allclose(after.sum(0), 1, atol=4e-3)
    np.testing.assert_allclose(after[1:] / after[1:].sum(0), before[1:] / before[1:].sum(0), atol=4e-3)
    assert confidence.min() >= 255 // 5
