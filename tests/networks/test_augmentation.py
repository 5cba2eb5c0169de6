"""Crops checked pixel by pixel, batches by counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fastcomus.networks.augmentation import augment, augment_batches, shuffle_epoch


@dataclass(frozen=True)
class Scale:
    scale_min: float = 0.5
    scale_max: float = 1.0


SIDE = 65


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red and green say where a pixel was (0 to 255), and a class map that says the same, exactly."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y * 255 / (height - 1), x * 255 / (width - 1), 0 * y], axis=2)
    return np.rint(pixels).astype(np.uint8), (y * width + x).astype(np.uint16)


def windows(scale: Scale, height: int, width: int, draws: int, side: int = SIDE) -> np.ndarray:
    """(draws, 5): y0, x0, height and width in pixels of the crop, as its labels tell, and whether it was mirrored."""
    pixels, class_map = coordinates(height, width)
    found = []
    for seed in range(draws):
        image, labels = augment(pixels, class_map, scale, side, np.random.default_rng(seed))
        y, x = labels // width, labels % width
        size = labels.shape[0]
        step_y = float(y[-1, 0] - y[0, 0]) / (size - 1)
        step_x = float(x[0, -1] - x[0, 0]) / (size - 1)
        assert (y == y[:, :1]).all() and (x == x[:1]).all()  # an upright rectangle
        found.append([int(y.min()), int(x.min()), step_y * size, abs(step_x) * size, step_x < 0])
        # Every pixel shows the place that its label names: within a step of sampling, and a rounding.
        expected = torch.stack([y * 255 / (height - 1), x * 255 / (width - 1)])
        allowed = torch.tensor([255 / (height - 1) * (1 + step_y), 255 / (width - 1) * (1 + abs(step_x))]) + 1
        assert ((image[:2].float() - expected).abs() <= allowed[:, None, None]).all()
    return np.array(found)


@pytest.mark.parametrize(("height", "width"), [(160, 200), (240, 100)])
def test_labels_move_with_their_pixels(height: int, width: int) -> None:
    made = windows(Scale(), height, width, 150, side=129)
    y0, x0, tall, wide, is_mirrored = made.T
    assert (y0 + tall <= height + 3).all() and (x0 + wide <= width + 3).all()
    area = tall * wide / (height * width)
    aspect = wide / tall
    assert aspect.min() > 3 / 4 * 0.95 and aspect.max() < 4 / 3 * 1.05
    assert np.ptp(x0) > 0.1 * width or np.ptp(y0) > 0.1 * height
    assert 0.35 < is_mirrored.mean() < 0.65
    if height < 2 * width:
        assert area.min() > 0.5 * 0.95 and area.max() <= 1 and np.ptp(area) > 0.25


def test_scale_range_is_respected() -> None:
    for least, most in ((0.1, 0.2), (0.3, 0.3), (0.6, 0.9)):
        _, _, tall, wide, _ = windows(Scale(least, most), 200, 200, 60).T
        area = tall * wide / 200**2
        assert area.min() > least * 0.94 and area.max() < most * 1.06


def test_scales_that_never_fit_give_the_largest_window() -> None:
    y0, x0, tall, wide, _ = windows(Scale(1.5, 2.0), 120, 240, 40).T
    assert np.allclose(tall, 120, atol=4) and np.allclose(wide, 160, atol=4)
    assert (y0 < 3).all() and np.ptp(x0) > 30


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2), (65, 65)])
@pytest.mark.parametrize("side", [65, 73])
def test_any_size_of_image_gives_the_side(shape: tuple[int, int], side: int) -> None:
    pixels, labels = np.full((*shape, 3), 7, np.uint8), np.full(shape, 299, np.uint16)
    for seed in range(5):
        image, target = augment(pixels, labels, Scale(0.5, 2.0), side, np.random.default_rng(seed))
        assert image.shape == (3, side, side) and image.dtype == torch.uint8 and (image == 7).all()
        assert target.shape == (side, side) and target.dtype == torch.int64 and (target == 299).all()


def test_same_seed_gives_the_same_crop() -> None:
    pixels, labels = coordinates(80, 96)
    first, second, other = (augment(pixels, labels, Scale(), SIDE, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_labels_that_are_ignored_stay() -> None:
    pixels, labels = np.zeros((40, 50, 3), np.uint8), np.full((40, 50), -1, np.int32)
    assert (augment(pixels, labels, Scale(), SIDE, np.random.default_rng(0))[1] == -1).all()


@pytest.mark.parametrize(
    ("count", "batch_size", "least", "sizes"),
    [
        (9, 4, 2, [4, 5]),
        (8, 4, 2, [4, 4]),
        (10, 4, 2, [4, 4, 2]),
        (3, 4, 2, [3]),
        (5, 2, 2, [2, 3]),
        (2, 56, 2, [2]),
        (11, 4, 4, [4, 7]),
    ],
)
def test_an_epoch_holds_every_image_once(count: int, batch_size: int, least: int, sizes: list[int]) -> None:
    first, second, again = (shuffle_epoch(count, batch_size, 5, epoch, least) for epoch in (0, 1, 0))
    assert [len(batch) for batch in first.batches] == sizes
    assert sorted(np.concatenate(first.batches)) == list(range(count))
    assert all(np.array_equal(*both) for both in zip(first.batches, again.batches, strict=True))
    assert count < 8 or not np.array_equal(np.concatenate(first.batches), np.concatenate(second.batches))
    assert len(set(first.seeds)) == count and not np.array_equal(first.seeds, second.seeds)


def test_batches_hold_the_crops_of_their_images() -> None:
    samples = [coordinates(60 + 3 * index, 80) for index in range(5)]
    epoch = shuffle_epoch(5, 2, 0, 0)
    made = list(augment_batches(samples.__getitem__, epoch.batches, epoch.seeds, Scale(), SIDE, workers=3))
    for indices, (images, labels) in zip(epoch.batches, made, strict=True):
        for index, image, target in zip(indices, images, labels, strict=True):
            expected = augment(*samples[index], Scale(), SIDE, np.random.default_rng(epoch.seeds[index]))
            assert torch.equal(image, expected[0]) and torch.equal(target, expected[1])
