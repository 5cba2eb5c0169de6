"""Augmentation checked pixel by pixel, batches by counting, training on planted squares, resuming bit by bit."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fastcomus.backends import select
from fastcomus.config import TrainConfig
from fastcomus.errors import InputError
from fastcomus.segmenter import Segmenter, aligned_side, build_segmenter
from fastcomus.self_training import Checkpoint, EpochRow, augment, train_epochs

CPU = select("cpu")
COLOURS = np.array([[90, 120, 90], [220, 40, 30], [30, 60, 220]])  # background and two clusters


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("backbone") / "mobilenet.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), file)
    return TrainConfig(
        backbone="mobilenetv3_small_050",
        backbone_weights=str(file),
        output_stride=8,
        train_size=65,
        scale_min=0.5,
        scale_max=1.0,
        batch_size=4,
        learning_rate=2e-3,
    )


def square(index: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with one coloured square and its class map."""
    rng = np.random.default_rng(index)
    labels = np.zeros((80, 96), np.uint16)
    side, y, x = int(rng.integers(32, 48)), int(rng.integers(0, 33)), int(rng.integers(0, 49))
    labels[y : y + side, x : x + side] = 1 + index % 2
    pixels = COLOURS[labels] + rng.normal(0, 6, (80, 96, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def train(
    config: TrainConfig, epochs: int, count: int = 12, seed: int = 0, workers: int = 2, resume: Checkpoint | None = None
) -> list[tuple[Checkpoint, dict[str, torch.Tensor]]]:
    """The checkpoint of every epoch with a copy of the weights, and each step's images counted."""
    steps: list[int] = []
    made = []
    for segmenter, checkpoint in train_epochs(
        square, count, 2, config, epochs, seed, CPU, workers, resume, steps.append
    ):
        made.append((written(checkpoint), {k: v.clone() for k, v in segmenter.state_dict().items()}))
    assert sum(steps) == count * len(made)
    return made


def written(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint after a trip to disk that unpickles tensors and numbers only."""
    stream = io.BytesIO()
    torch.save(checkpoint.state, stream)
    stream.seek(0)
    return Checkpoint(checkpoint.history, torch.load(stream, weights_only=True))


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# -- augmentation -----------------------------------------------------------------------------------------------


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red and green say where a pixel was (0 to 255), and a class map that says the same, exactly."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([y * 255 / (height - 1), x * 255 / (width - 1), 0 * y], axis=2)
    return np.rint(pixels).astype(np.uint8), (y * width + x).astype(np.uint16)


def augmented(
    pixels: np.ndarray, class_map: np.ndarray, config: TrainConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    return augment(pixels, class_map, config, aligned_side(config.train_size, config.output_stride), rng)


def windows(config: TrainConfig, height: int, width: int, draws: int) -> np.ndarray:
    """(draws, 5): y0, x0, height and width in pixels of the crop, as its labels tell, and whether it was mirrored."""
    pixels, class_map = coordinates(height, width)
    found = []
    for seed in range(draws):
        image, labels = augmented(pixels, class_map, config, np.random.default_rng(seed))
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
def test_labels_move_with_their_pixels(config: TrainConfig, height: int, width: int) -> None:
    made = windows(replace(config, train_size=129), height, width, 150)
    y0, x0, tall, wide, is_mirrored = made.T
    assert (y0 + tall <= height + 3).all() and (x0 + wide <= width + 3).all()
    area = tall * wide / (height * width)
    aspect = wide / tall
    assert aspect.min() > 3 / 4 * 0.95 and aspect.max() < 4 / 3 * 1.05
    assert np.ptp(x0) > 0.1 * width or np.ptp(y0) > 0.1 * height
    assert 0.35 < is_mirrored.mean() < 0.65
    if height < 2 * width:
        assert area.min() > 0.5 * 0.95 and area.max() <= 1 and np.ptp(area) > 0.25


def test_scale_range_is_respected(config: TrainConfig) -> None:
    for least, most in ((0.1, 0.2), (0.3, 0.3), (0.6, 0.9)):
        _, _, tall, wide, _ = windows(replace(config, scale_min=least, scale_max=most), 200, 200, 60).T
        area = tall * wide / 200**2
        assert area.min() > least * 0.94 and area.max() < most * 1.06


def test_scales_that_never_fit_give_the_largest_window(config: TrainConfig) -> None:
    y0, x0, tall, wide, _ = windows(replace(config, scale_min=1.5, scale_max=2.0), 120, 240, 40).T
    assert np.allclose(tall, 120, atol=4) and np.allclose(wide, 160, atol=4)
    assert (y0 < 3).all() and np.ptp(x0) > 30


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2), (65, 65)])
@pytest.mark.parametrize(("train_size", "side"), [(65, 65), (64, 65), (70, 73)])
def test_any_size_of_image_gives_the_aligned_size(
    config: TrainConfig, shape: tuple[int, int], train_size: int, side: int
) -> None:
    pixels, labels = np.full((*shape, 3), 7, np.uint8), np.full(shape, 299, np.uint16)
    sized = replace(config, train_size=train_size, scale_max=2.0)
    for seed in range(5):
        image, target = augmented(pixels, labels, sized, np.random.default_rng(seed))
        assert image.shape == (3, side, side) and image.dtype == torch.uint8 and (image == 7).all()
        assert target.shape == (side, side) and target.dtype == torch.int64 and (target == 299).all()


def test_same_seed_gives_the_same_crop(config: TrainConfig) -> None:
    pixels, labels = square(0)
    first, second, other = (augmented(pixels, labels, config, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


# -- training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_epochs(config: TrainConfig) -> list[tuple[Checkpoint, dict[str, torch.Tensor]]]:
    return train(config, 3)


def test_planted_squares_are_learned(config: TrainConfig) -> None:
    made = train(replace(config, schedule="cosine", learning_rate=5e-3, scale_min=0.8), 14, count=20)
    history = made[-1][0].history
    assert [row.epoch for row in history] == list(range(1, 15)) and {row.images for row in history} == {20}
    assert history[-1].loss < history[0].loss / 3 and history[-1].agreement > 0.9
    rates = [row.learning_rate for row in history]
    assert rates[0] == 5e-3 and rates == sorted(rates, reverse=True) and rates[-1] < rates[0] / 20
    # Seen at the size of training, objects of other images get their own label too.
    segmenter = loaded(made[-1][1], config)
    whole = replace(config, scale_min=0.9)
    views = [augmented(*square(index), whole, np.random.default_rng(index)) for index in range(100, 120)]
    images, truth = (torch.stack(tensors) for tensors in zip(*views, strict=True))
    with torch.inference_mode():
        found = segmenter(images).argmax(1)
    for label in range(3):
        assert (found == truth)[truth == label].float().mean() > 0.75


def loaded(weights: dict[str, torch.Tensor], config: TrainConfig) -> Segmenter:
    segmenter = build_segmenter(config.backbone, "", 2, config.output_stride, pretrained=False)
    segmenter.load_state_dict(weights)
    return segmenter.eval()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_resumed_training_ends_with_the_same_bits(
    config: TrainConfig, schedule: str, three_epochs: list[tuple[Checkpoint, dict[str, torch.Tensor]]]
) -> None:
    config = replace(config, schedule=schedule, head_learning_rate=0.0 if schedule == "constant" else 4e-3)
    whole = three_epochs if schedule == "constant" else train(config, 3)
    resumed = train(config, 3, resume=whole[0][0], workers=3)
    assert len(resumed) == 2
    for (one, weights), (other, others) in zip(whole[1:], resumed, strict=True):
        assert_equal_weights(weights, others)
        assert one.history == other.history
    assert train(config, 3, resume=whole[-1][0]) == []


def test_seed_decides_everything(
    config: TrainConfig, three_epochs: list[tuple[Checkpoint, dict[str, torch.Tensor]]]
) -> None:
    assert_equal_weights(train(config, 1, workers=1)[0][1], three_epochs[0][1])
    other = train(config, 1, seed=1)[0][1]
    assert any(not torch.equal(tensor, other[name]) for name, tensor in three_epochs[0][1].items())


def test_head_has_its_own_rate(config: TrainConfig) -> None:
    start = train(replace(config, learning_rate=1e-12), 1, count=4)[0][1]
    moved = train(replace(config, learning_rate=1e-12, head_learning_rate=1e-2), 1, count=4)[0][1]
    for name, tensor in start.items():
        if "num_batches" in name or "running" in name:
            continue
        difference = float((tensor - moved[name]).abs().max())
        assert difference < 1e-6 if name.startswith("backbone") else difference > 1e-4, name


@pytest.mark.parametrize(
    ("count", "batch_size", "batches"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 4, [3]), (5, 2, [2, 3]), (2, 56, [2])],
)
def test_every_image_is_seen_once_per_epoch(
    config: TrainConfig, count: int, batch_size: int, batches: list[int]
) -> None:
    seen: list[int] = []
    steps: list[int] = []

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        seen.append(index)
        return square(index)

    tiny = replace(config, batch_size=batch_size, train_size=33)
    rows: list[EpochRow] = []
    for _, checkpoint in train_epochs(read, count, 2, tiny, 2, 0, CPU, 1, None, steps.append):
        rows = list(checkpoint.history)
    assert steps == 2 * batches and [row.images for row in rows] == [count, count]
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))
    assert count < 8 or seen[:count] != seen[count:]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(config: TrainConfig, count: int) -> None:
    with pytest.raises(InputError, match=f"at least 2 images .*got {count}"):
        train(config, 1, count=count)


def test_bf16_trains_almost_like_float32(config: TrainConfig) -> None:
    low, full = (train(replace(config, precision=p), 1, count=4)[0][0].history[0].loss for p in ("bf16", "float32"))
    assert low != full and abs(low - full) < 0.05 * full
