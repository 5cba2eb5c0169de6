"""Class maps to a trained segmenter (steps 9 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from fastcomus.backends import Backend
from fastcomus.config import TrainConfig
from fastcomus.encoders import autocast
from fastcomus.errors import InputError
from fastcomus.read_ahead import read_ahead
from fastcomus.segmenter import Segmenter, aligned_side, build_segmenter

ReadSample = Callable[[int], tuple[np.ndarray, np.ndarray]]
_ASPECT = (3 / 4, 4 / 3)


class Augmentation(Protocol):
    """What `augment` and the batches need of a stage's settings."""

    @property
    def scale_min(self) -> float: ...

    @property
    def scale_max(self) -> float: ...

    @property
    def batch_size(self) -> int: ...


@dataclass(frozen=True)
class EpochRow:
    """A line of training.csv. `agreement`: share of the training pixels whose label the network gave, in [0, 1];
    `learning_rate`: the backbone's at the start of the epoch."""

    epoch: int
    loss: float
    agreement: float
    learning_rate: float
    images: int


@dataclass(frozen=True)
class Checkpoint:
    """Everything training needs to go on after an epoch; `state` holds tensors and numbers only."""

    history: tuple[EpochRow, ...]
    state: dict[str, Any]


def train_epochs(
    read: ReadSample,
    count: int,
    k: int,
    config: TrainConfig,
    epochs: int,
    seed: int,
    backend: Backend,
    workers: int,
    resume: Checkpoint | None,
    on_step: Callable[[int], None],
) -> Iterator[tuple[Segmenter, Checkpoint]]:
    """Train DeepLabv3 from its backbone's own weights; yields the segmenter and a checkpoint after every epoch.

    Adam, plain cross-entropy, random resized crops and horizontal flips; a set smaller than the batch is one batch.
    Every random choice of an epoch comes from (seed, epoch), so training that resumes from a checkpoint ends with the
    same weights as training that was never interrupted.

    `read(i)`, for i in [0, count): pixels (H, W, 3) uint8 and class map (H, W) with labels in [0, k]; it is called from
    `workers` threads. `on_step` is told the number of images of each step.
    """
    if count < 2:
        raise InputError(f"training needs at least 2 images (batch statistics come from several); got {count}.")
    torch.manual_seed(seed)
    segmenter = build_segmenter(config.backbone, config.backbone_weights, k, config.output_stride).to(backend.device)
    optimizer = torch.optim.Adam(
        [
            {"params": segmenter.backbone.parameters(), "lr": config.learning_rate},
            {"params": segmenter.head.parameters(), "lr": config.head_learning_rate or config.learning_rate},
        ]
    )
    history: tuple[EpochRow, ...] = ()
    if resume is not None:
        history = resume.history
        segmenter.load_state_dict(resume.state["segmenter"])
        optimizer.load_state_dict(resume.state["optimizer"])
    steps = len(batch_starts(count, config.batch_size))
    scheduler = LambdaLR(
        optimizer,
        lambda step: cosine_factor(step / (steps * epochs)) if config.schedule == "cosine" else 1.0,
        last_epoch=len(history) * steps - 1,
    )
    for epoch in range(len(history), epochs):
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        side = aligned_side(config.train_size, config.output_stride)
        batches = augmented_batches(read, count, config, side, rng, workers)
        row = _train_one_epoch(segmenter, optimizer, scheduler, batches, epoch, config.precision, on_step)
        history = (*history, row)
        yield segmenter, Checkpoint(history, {"segmenter": segmenter.state_dict(), "optimizer": optimizer.state_dict()})


def cosine_factor(progress: float) -> float:
    """By which the learning rate is multiplied after that share of training, in [0, 1]: from 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def _train_one_epoch(
    segmenter: Segmenter,
    optimizer: torch.optim.Optimizer,
    scheduler: LambdaLR,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    epoch: int,
    precision: str,
    on_step: Callable[[int], None],
) -> EpochRow:
    segmenter.train()
    device = segmenter.mean.device
    learning_rate = float(scheduler.get_last_lr()[0])
    loss_sum = agreement_sum = 0.0
    seen = 0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        with autocast(device, precision):
            logits = segmenter(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        with torch.no_grad():
            agreement_sum += float((logits.argmax(1) == labels).float().mean()) * len(images)
        loss_sum += float(loss.detach()) * len(images)
        seen += len(images)
        on_step(len(images))
    return EpochRow(epoch + 1, loss_sum / seen, agreement_sum / seen, learning_rate, seen)


def augmented_batches(
    read: ReadSample, count: int, config: Augmentation, side: int, rng: np.random.Generator, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every image once, in a random order, read and augmented by threads ahead of the network; see `augment`."""
    order = rng.permutation(count)
    starts = batch_starts(count, config.batch_size)
    seeds = rng.integers(2**63, size=len(order))

    def sample(index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, class_map = read(index)
        return augment(pixels, class_map, config, side, np.random.default_rng(seeds[index]))

    samples = read_ahead(sample, order.tolist(), workers)
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        images, labels = zip(*(next(samples) for _ in range(start, end)), strict=True)
        yield torch.stack(images), torch.stack(labels)


def batch_starts(count: int, batch_size: int) -> list[int]:
    """Where each batch starts. A last one of a single image joins the one before it: batch statistics need two."""
    starts = list(range(0, count, batch_size))
    return starts[:-1] if len(starts) > 1 and count - starts[-1] == 1 else starts


def augment(
    pixels: np.ndarray, class_map: np.ndarray, config: Augmentation, side: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random resized crop, mirrored half of the time: (3, S, S) uint8 and (S, S) int64, S = `side`.

    The crop covers `scale_min` to `scale_max` of the image's area at an aspect ratio (width to height) of 3/4 to 4/3;
    where ten draws do not fit, it is the largest such window that does.
    """
    height, width = class_map.shape
    x, y, w, h = _crop_window(width, height, config, rng)
    size = [side, side]
    planes = torch.from_numpy(pixels[y : y + h, x : x + w]).permute(2, 0, 1)[None]
    labels = torch.from_numpy(class_map[y : y + h, x : x + w].astype(np.int32))[None, None]
    image = transforms.resize(planes, size, antialias=True)[0]
    target = transforms.resize(labels, size, interpolation=InterpolationMode.NEAREST_EXACT)[0, 0].long()
    if rng.random() < 0.5:
        image, target = image.flip(-1), target.flip(-1)
    return image.contiguous(), target.contiguous()


def _crop_window(width: int, height: int, config: Augmentation, rng: np.random.Generator) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * rng.uniform(config.scale_min, config.scale_max)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
    # None fitted: the largest window of an allowed shape, anywhere along the longer side.
    w, h = min(width, round(height * _ASPECT[1])), min(height, round(width / _ASPECT[0]))
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h
