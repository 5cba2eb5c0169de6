"""Training on planted squares, resuming bit by bit, parts of a batch against the whole of it."""

from __future__ import annotations

import inspect
import io
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from conftest import BACKBONE
from squares import square
from torch.nn import functional

from fastcomus.backends.choose import select
from fastcomus.config import TrainConfig
from fastcomus.errors import InputError
from fastcomus.networks.augmentation import ReadSample, augment, augment_batches, shuffle_epoch
from fastcomus.networks.fixed_padding import align_side
from fastcomus.segmentation.segmenter import Segmenter, build_segmenter, enlarge_logits
from fastcomus.segmentation.strips import IGNORED, split_into_strips
from fastcomus.segmentation.training import Checkpoint, SelfTraining, derive_dropout_seed

CPU = select("cpu")


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    sizes = {"output_stride": 16, "train_size": 65, "scale_min": 0.5, "scale_max": 1.0, "batch_size": 4}
    return TrainConfig(**BACKBONE, **sizes, learning_rate=2e-3)


@dataclass(frozen=True)
class Trained:
    """What is left after a step: its checkpoint after a trip to disk, and the network."""

    checkpoint: Checkpoint
    weights: dict[str, torch.Tensor]

    @property
    def history(self) -> list[tuple[float, ...]]:
        """Without the last column, which is measured on the clock."""
        return [astuple(row)[:-1] for row in self.checkpoint.history]


def train(
    config: TrainConfig,
    epochs: int,
    count: int = 12,
    seed: int = 0,
    workers: int = 2,
    resume: Checkpoint | None = None,
    every_step: bool = False,
    read: ReadSample = square,
) -> list[Trained]:
    """One `Trained` per epoch, or per step."""
    training = SelfTraining(2, config, epochs, seed, CPU, resume=resume)
    made = []
    for _ in training.train(read, count, workers):
        if every_step or training.steps == 0:
            weights = {name: tensor.clone() for name, tensor in training.get_trained().state_dict().items()}
            made.append(Trained(written(training.make_checkpoint()), weights))
    return made


def written(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint after a trip to disk that unpickles tensors and numbers only."""
    stream = io.BytesIO()
    torch.save(checkpoint.state, stream)
    stream.seek(0)
    return Checkpoint(checkpoint.history, checkpoint.steps, torch.load(stream, weights_only=True))


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


# -- training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_epochs(config: TrainConfig) -> list[Trained]:
    return train(config, 3)


def test_a_step_is_cross_entropy_on_logits_at_the_images_size(config: TrainConfig) -> None:
    config = replace(config, batch_size=6, precision="float32")
    made = train(config, 1, count=6)[0].checkpoint
    side, epoch = align_side(config.train_size, config.output_stride), shuffle_epoch(6, 6, 0, 0)
    (images, labels), *_ = augment_batches(square, epoch.batches, epoch.seeds, config, side, 1)
    torch.manual_seed(0)
    network = build_segmenter(config.backbone, config.backbone_weights, 2, config.output_stride).train()
    torch.manual_seed(derive_dropout_seed(0, 0, 0, 0))
    loss = functional.cross_entropy(enlarge_logits(network(images), labels.shape), labels)
    loss.backward()
    assert made.history[0].loss == pytest.approx(loss.item(), rel=1e-3)
    expected = [parameter.grad for parameter in network.parameters()]
    noise = 1e-6 * max(float(one.abs().max()) for one in expected)  # of biases before a normalisation
    for wanted, state in zip(expected, made.state["optimizer"]["state"].values(), strict=True):
        gradient, scale = state["exp_avg"] / 0.1, float(wanted.abs().max())
        assert torch.allclose(gradient, wanted, atol=1e-2 * scale + noise), scale


@pytest.mark.parametrize("are_images_joined", [False, True])
@pytest.mark.parametrize("most", [1, 5 * 65 * 16 * 3, 2**30])
def test_strips_are_the_whole_image(most: int, are_images_joined: bool) -> None:
    """Each pixel once, in order, with the same logits and gradients; no strip larger than it may be."""
    generator = torch.Generator().manual_seed(0)
    unsummed = partial(functional.cross_entropy, ignore_index=IGNORED, reduction="none")
    logits = torch.randn((2, 5, 6, 5), generator=generator, requires_grad=True)
    labels = torch.randint(-1, 5, (2, 81, 65), generator=generator)
    parts = list(split_into_strips(logits, labels, most, are_images_joined))
    assert len(parts) == 1 or not are_images_joined or most < 2**30
    each = [enlarge_logits(strip, its_labels.shape) for strip, its_labels in parts]
    assert max(part.numel() for part in each) <= max(most, 5 * 65 * 16) + 5 * 65
    labels_of = [its_labels for _, its_labels in parts]
    losses = [unsummed(part, its_labels) for part, its_labels in zip(each, labels_of, strict=True)]
    sum(loss.sum() for loss in losses).backward()
    in_strips, logits.grad = logits.grad, None
    whole = unsummed(enlarge_logits(logits, labels.shape), labels)
    whole.sum().backward()
    assert torch.allclose(in_strips, logits.grad, atol=1e-4)
    learnt = [loss[its_labels != IGNORED] for loss, its_labels in zip(losses, labels_of, strict=True)]
    assert torch.allclose(torch.cat(learnt), whole[labels != IGNORED], atol=1e-5)


def test_planted_squares_are_learned(config: TrainConfig) -> None:
    made = train(replace(config, schedule="cosine", learning_rate=5e-3, scale_min=0.8), 8, count=20)
    history = made[-1].checkpoint.history
    assert [row.epoch for row in history] == list(range(1, 9)) and {row.images for row in history} == {20}
    assert history[-1].loss < history[0].loss / 3 and history[-1].agreement > 0.9
    rates = [row.learning_rate for row in history]
    assert rates[0] == 5e-3 and rates == sorted(rates, reverse=True) and rates[-1] < rates[0] / 20
    # Seen at the size of training, objects of other images get their own label too.
    segmenter = loaded(made[-1].weights, config)
    whole = replace(config, scale_min=0.9)
    views = [augment(*square(index), whole, 65, np.random.default_rng(index)) for index in range(100, 120)]
    images, truth = (torch.stack(tensors) for tensors in zip(*views, strict=True))
    with torch.inference_mode():
        found = enlarge_logits(segmenter(images), images.shape).argmax(1)
    for label in range(3):
        assert (found == truth)[truth == label].float().mean() > 0.75


def loaded(weights: dict[str, torch.Tensor], config: TrainConfig) -> Segmenter:
    segmenter = build_segmenter(config.backbone, "", 2, config.output_stride, pretrained=False)
    segmenter.load_state_dict(weights)
    return segmenter.eval()


def test_resumed_training_ends_with_the_same_bits(config: TrainConfig, three_epochs: list[Trained]) -> None:
    resumed = train(config, 3, resume=three_epochs[0].checkpoint, workers=3)
    assert len(resumed) == 2
    for one, other in zip(three_epochs[1:], resumed, strict=True):
        assert_equal_weights(one.weights, other.weights)
        assert one.history == other.history
    assert train(config, 3, resume=three_epochs[-1].checkpoint) == []


def test_training_goes_on_in_the_middle_of_an_epoch(config: TrainConfig) -> None:
    config = replace(config, weight_average=0.6, images_at_once=2, schedule="cosine", head_learning_rate=4e-3)
    whole = train(config, 2, count=8, every_step=True)
    assert [one.checkpoint.steps for one in whole] == [1, 0, 1, 0]
    for place in (0, 2):
        resumed = train(config, 2, count=8, resume=whole[place].checkpoint)[-1]
        assert_equal_weights(whole[-1].weights, resumed.weights)
        assert whole[-1].history == resumed.history


def test_seed_decides_everything(config: TrainConfig, three_epochs: list[Trained]) -> None:
    assert_equal_weights(train(config, 1, workers=1)[0].weights, three_epochs[0].weights)
    other = train(config, 1, seed=1)[0].weights
    assert any(not torch.equal(tensor, other[name]) for name, tensor in three_epochs[0].weights.items())


def frozen_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks train without dropout and with the batch statistics they have, so that batches can be taken apart."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, values: values)

    plain = torch.nn.functional.batch_norm

    def batch_norm(*arguments: Any, **named: Any) -> torch.Tensor:
        given = inspect.signature(plain).bind(*arguments, **named)
        given.arguments |= {"training": False, "momentum": 0.0}
        return plain(*given.args, **given.kwargs)

    monkeypatch.setattr(torch.nn.functional, "batch_norm", batch_norm)
    monkeypatch.setattr("torch.optim.Adam", torch.optim.SGD)  # Adam makes equal steps of the smallest rounding


@pytest.mark.parametrize("at_once", [2, 3, 5])
def test_a_batch_in_parts_teaches_what_the_whole_does(
    config: TrainConfig, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where parts differ in how many of their pixels count."""
    frozen_statistics(monkeypatch)

    def partly_ignored(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = square(index)
        return pixels, np.where(np.arange(96) < 12 * index, IGNORED, labels.astype(np.int32))

    config = replace(config, batch_size=7, learning_rate=1e-2)
    whole, parts = (
        train(replace(config, images_at_once=images), 1, count=7, read=partly_ignored)[-1] for images in (0, at_once)
    )
    start = train(replace(config, learning_rate=1e-12), 1, count=7, read=partly_ignored)[-1]
    moved, difference = (
        torch.cat(
            [(whole.weights[name] - other.weights[name]).ravel() for name in whole.weights if "num_b" not in name]
        )
        for other in (start, parts)
    )
    assert 0 < difference.norm() < 0.02 * moved.norm()  # rounding, in a network whose weights are random
    assert np.allclose(whole.history, parts.history, rtol=1e-4)


def test_ignored_pixels_teach_nothing(config: TrainConfig) -> None:
    def all_ignored(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = square(index)
        return pixels, np.full(labels.shape, IGNORED, np.int32)

    def half_ignored(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = square(index)
        ignored = np.random.default_rng(index).random(labels.shape) < 0.5
        return pixels, np.where(ignored, IGNORED, labels.astype(np.int32))

    nothing = train(config, 1, count=4, read=all_ignored)[0]
    assert nothing.history[0][1:3] == (0.0, 0.0)
    start = build_segmenter(config.backbone, config.backbone_weights, 2, config.output_stride).backbone.state_dict()
    for name, tensor in start.items():
        assert "running" in name or "tracked" in name or torch.equal(tensor, nothing.weights[f"backbone.{name}"]), name
    learnt = train(replace(config, schedule="cosine", learning_rate=5e-3), 5, read=half_ignored)
    assert learnt[-1].history[-1][2] > 0.7  # of the pixels that count


def test_average_of_weights_follows_the_weights(config: TrainConfig) -> None:
    plain = train(config, 2, count=8, every_step=True)
    averaged = train(replace(config, weight_average=0.5), 2, count=8, every_step=True)
    expected = plain[0].weights["head.4.weight"].double()
    assert len(plain) == 4  # the share kept reaches 0.5 at the second update
    for updates, (one, other) in enumerate(zip(plain[1:], averaged[1:], strict=True), start=1):
        kept = min(0.5, (1 + updates) / (4 + updates))
        expected = kept * expected + (1 - kept) * one.weights["head.4.weight"]
        torch.testing.assert_close(other.weights["head.4.weight"].double(), expected, rtol=1e-5, atol=1e-7)
    assert_equal_weights(plain[-1].checkpoint.state["segmenter"], averaged[-1].checkpoint.state["segmenter"])


def test_head_has_its_own_rate(config: TrainConfig) -> None:
    start = train(replace(config, learning_rate=1e-12), 1, count=4)[0].weights
    moved = train(replace(config, learning_rate=1e-12, head_learning_rate=1e-2), 1, count=4)[0].weights
    for name, tensor in start.items():
        if "num_batches" in name or "running" in name:
            continue
        difference = float((tensor - moved[name]).abs().max())
        assert difference < 1e-6 if name.startswith("backbone") else difference > 1e-4, name


def test_every_image_is_seen_once_per_epoch(config: TrainConfig) -> None:
    seen: list[int] = []

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        seen.append(index)
        return square(index)

    training = SelfTraining(2, replace(config, train_size=33), 2, 0, CPU)
    assert list(training.train(read, 9, 1)) == [4, 5, 4, 5]
    assert [row.images for row in training.history] == [9, 9]
    assert sorted(seen[:9]) == sorted(seen[9:]) == list(range(9)) and seen[:9] != seen[9:]


@pytest.mark.parametrize(("start", "sides"), [(0, [65, 65, 65]), (33, [33, 33, 65]), (97, [65, 65, 65])])
def test_crops_are_smaller_at_first(start: int, sides: list[int], config: TrainConfig) -> None:
    training, seen = SelfTraining(2, replace(config, start_size=start), 3, 0, CPU), []
    training.segmenter.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    list(training.train(square, 4, 1))
    assert seen == sides


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(config: TrainConfig, count: int) -> None:
    with pytest.raises(InputError, match=f"at least 2 images .*got {count}"):
        train(config, 1, count=count)


def test_bf16_trains_almost_like_float32(config: TrainConfig) -> None:
    low, full = (
        train(replace(config, precision=p), 1, count=4)[0].checkpoint.history[0].loss for p in ("bf16", "float32")
    )
    assert low != full and abs(low - full) < 0.05 * full
