"""Training of the segmenter on class maps (steps 9 and 10)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from fastcomus.backends.interface import Backend
from fastcomus.backends.machine import move_to_device
from fastcomus.config import TrainConfig
from fastcomus.errors import InputError
from fastcomus.networks.augmentation import ReadSample, augment_batches, shuffle_epoch
from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.determinism import sum_cross_entropy, use_determinism
from fastcomus.networks.fixed_padding import align_side
from fastcomus.networks.frozen_layers import freeze_layers
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.networks.recomputed_activations import RecomputedActivations
from fastcomus.networks.schedules import compute_batch_starts, compute_cosine_factor, make_moving_average
from fastcomus.networks.synchronized_batch_norm import synchronize_batch_norms
from fastcomus.processes import ProcessGroup
from fastcomus.segmentation.segmenter import Segmenter, build_segmenter, enlarge_logits
from fastcomus.segmentation.strips import IGNORED, plan_strips, split_into_strips

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class EpochRow:
    """A line of training.csv.

    Attributes:
        epoch: From 1.
        loss: Mean cross-entropy of the pixels learnt from.
        agreement: Share of these pixels to which the network gave their label, in [0, 1].
        learning_rate: Of the backbone, at the start of the epoch.
        images: Number of training images.
        images_per_s: By the clock, over the part of the epoch since the process was started.
    """

    epoch: int
    loss: float
    agreement: float
    learning_rate: float
    images: int
    images_per_s: float


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to continue after a step.

    `history`: a row per finished epoch. `steps`: steps done in the epoch after these. `state`: tensors and numbers
    only.
    """

    history: tuple[EpochRow, ...]
    steps: int
    state: dict[str, Any]


class SelfTraining:
    """Training of DeepLabv3 from its backbone's own weights: Adam, cross-entropy, random resized crops, mirrored.

    A step learns from `batch_size` images (a smaller set is one batch). The loss is the mean over the pixels of the
    whole batch, however many images the network sees at once (`images_at_once`) and in whichever process. Statistics
    of batch normalisation come from the images seen at once in all processes.

    All random choices of a step are drawn from (seed, epoch, step), so that training that resumes from a checkpoint
    ends with the same weights as training that was never interrupted. The order of images and their crops do not
    depend on the number of processes; dropout does.
    """

    def __init__(
        self,
        k: int,
        config: TrainConfig,
        epochs: int,
        seed: int,
        backend: Backend,
        processes: ProcessGroup | None = None,
        resume: Checkpoint | None = None,
    ) -> None:
        """Build the network and its optimiser, or restore them from the checkpoint `resume`.

        Args:
            k: Number of clusters.
            config: Settings of training.
            epochs: Number of epochs in all.
            seed: Of all random choices, the same in all processes.
            backend: Where the network trains.
            processes: Those that train together on the same images; None for this one alone.
            resume: The checkpoint to continue from.
        """
        self.config, self.epochs, self.seed = config, epochs, seed
        self.processes = processes or ProcessGroup()
        self.device = backend.device
        self.precision = choose_precision(config.precision, self.device)
        self.is_deterministic = backend.is_deterministic
        if not self.is_deterministic:
            log.info("train: on a GPU two trainings agree up to rounding, to the byte with --deterministic (slower)")
        self.strips = plan_strips(self.device)
        torch.manual_seed(seed)
        segmenter = build_segmenter(config.backbone, config.backbone_weights, k, config.output_stride)
        segmenter = segmenter.to(self.device)
        self.averaged = None
        if config.weight_average:
            self.averaged = AveragedModel(segmenter, multi_avg_fn=make_moving_average(config.weight_average))
        if self.processes.size > 1:
            synchronize_batch_norms(segmenter, self.device)
        self.segmenter = segmenter
        self.frozen = freeze_layers(segmenter.backbone, config.frozen_stride)
        self.optimizer = torch.optim.Adam(
            [
                {"params": segmenter.backbone.parameters(), "lr": config.learning_rate},
                {"params": segmenter.head.parameters(), "lr": config.head_learning_rate or config.learning_rate},
            ]
        )
        self.history: tuple[EpochRow, ...] = ()
        self.steps = 0
        # Sums over the epoch so far, in all processes: loss, pixels labelled correctly, pixels learnt from.
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        if resume is not None:
            self.history, self.steps = resume.history, resume.steps
            segmenter.load_state_dict(resume.state["segmenter"])
            self.optimizer.load_state_dict(resume.state["optimizer"])
            self.sums += resume.state["sums"].to(self.device)
            if self.averaged is not None:
                self.averaged.load_state_dict(resume.state["averaged"])
        if config.compile:
            segmenter.compile()
        self.network: nn.Module = segmenter
        if self.processes.size > 1:
            self.network = DistributedDataParallel(segmenter, broadcast_buffers=False)

    def get_trained(self) -> Segmenter:
        """Return the network in its present state, with averaged weights if the settings ask for them."""
        if self.averaged is None:
            return self.segmenter
        assert isinstance(self.averaged.module, Segmenter)
        return self.averaged.module

    def make_checkpoint(self) -> Checkpoint:
        """Return the state after the last step; its tensors are not copied and change with the next step."""
        state = {
            "segmenter": self.segmenter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
        }
        if self.averaged is not None:
            state["averaged"] = self.averaged.state_dict()
        return Checkpoint(self.history, self.steps, state)

    def train(self, read: ReadSample, count: int, workers: int) -> Iterator[int]:
        """Train to the end, yielding each step's number of images over all processes; `history` grows with every epoch.

        Args:
            read: Gives for i in [0, count) pixels (H, W, 3) uint8 and a class map (H, W) with labels in [0, k] or
                IGNORED. Called by several threads.
            count: Number of training images.
            workers: Number of threads that read and augment.

        Raises:
            InputError: There are fewer than two images, or fewer than processes.
        """
        least = max(2, self.processes.size)
        if count < least:
            raise InputError(
                f"training needs at least {least} images (batch statistics come from several, and each of "
                f"{self.processes.size} processes sees one); got {count}."
            )
        batch_size = max(self.config.batch_size, least)
        steps = len(compute_batch_starts(count, batch_size, least))
        scheduler = self._make_scheduler(steps)
        for number in range(len(self.history), self.epochs):
            epoch = shuffle_epoch(count, batch_size, self.seed, number, least)
            done = self.steps
            passes = [self._split_into_passes(batch) for batch in epoch.batches[done:]]
            mine = [part for batch in passes for part in batch]
            samples = augment_batches(read, mine, epoch.seeds, self.config, self._choose_side(number), workers)
            first_rate = float(self.optimizer.param_groups[0]["initial_lr"])
            learning_rate = first_rate * self._compute_rate(number * steps, steps)
            started, seen = time.perf_counter(), 0
            for step, (batch, parts) in enumerate(zip(epoch.batches[done:], passes, strict=True), start=done):
                given = [next(samples) for _ in parts]
                with use_determinism(self.device, self.is_deterministic):
                    self._step(given, number, step)
                scheduler.step()
                self.steps = step + 1
                seen += len(batch)
                if self.steps == steps:
                    self._end_epoch(learning_rate, count, seen / (time.perf_counter() - started))
                yield len(batch)

    def _choose_side(self, epoch: int) -> int:
        """Choose the side of an epoch's crops, in pixels: in the first two thirds of the epochs `start_size`."""
        side = self.config.train_size
        if self.config.start_size and 3 * (epoch + 1) <= 2 * self.epochs:
            side = min(side, self.config.start_size)
        return align_side(side, self.config.output_stride)

    def _split_into_passes(self, batch: np.ndarray) -> list[np.ndarray]:
        """Cut out this process's parts of a batch: equally many in each, of one image or more, two over all."""
        processes, at_once = self.processes.size, self.config.images_at_once or len(batch)
        passes = min(math.ceil(len(batch) / (processes * at_once)), len(batch) // max(2, processes))
        return np.array_split(batch, passes * processes)[self.processes.rank :: processes]

    def _step(self, parts: list[tuple[torch.Tensor, torch.Tensor]], epoch: int, step: int) -> None:
        torch.manual_seed(derive_dropout_seed(self.seed, epoch, step, self.processes.rank))
        self.network.train()
        for layer in self.frozen:
            layer.eval()
        learnt = torch.tensor([float(sum((labels != IGNORED).sum() for _, labels in parts))])
        pixels = self.processes.sum(move_to_device(learnt, self.device)).clamp(min=1)
        # DistributedDataParallel averages the gradients of processes; here they are to be summed.
        share = self.processes.size / pixels
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros_like(self.sums)
        for place, (images, labels) in enumerate(parts):
            images, labels = move_to_device(images, self.device), move_to_device(labels, self.device)
            with self._keep_gradients(place + 1 < len(parts)):
                with use_precision(self.device, self.precision), self._use_shortcuts(), self._keep_less():
                    logits = self.network(images)
                coarse = logits.detach().requires_grad_()
                for strip, its_labels in split_into_strips(coarse, labels, *self.strips):
                    each = enlarge_logits(strip, its_labels.shape)
                    loss = sum_cross_entropy(each, its_labels, IGNORED)
                    (loss * share).backward()
                    given = (each.detach().argmax(1) == its_labels).sum()
                    sums += torch.stack([loss.detach(), given, (its_labels != IGNORED).sum()]).double()
                logits.backward(coarse.grad)
        self.optimizer.step()
        self.sums += self.processes.sum(sums)
        if self.averaged is not None:
            self.averaged.update_parameters(self.segmenter)

    def _use_shortcuts(self) -> AbstractContextManager[Any]:
        """Speed up bf16 on the CPU, except in a compiled network, which is fast already."""
        return nullcontext() if self.config.compile else use_cpu_shortcuts(self.device)

    def _keep_less(self) -> AbstractContextManager[Any]:
        """Halve the memory of a pass where the network is not compiled."""
        return nullcontext() if self.config.compile else RecomputedActivations()

    def _keep_gradients(self, are_kept: bool) -> Any:
        """Let processes exchange gradients only in the last pass of a step."""
        if are_kept and isinstance(self.network, DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()

    def _end_epoch(self, learning_rate: float, images: int, images_per_s: float) -> None:
        loss, given, pixels = self.sums.tolist()
        pixels = max(1.0, pixels)
        row = EpochRow(len(self.history) + 1, loss / pixels, given / pixels, learning_rate, images, images_per_s)
        self.history = (*self.history, row)
        self.steps = 0
        self.sums = torch.zeros_like(self.sums)

    def _make_scheduler(self, steps: int) -> LambdaLR:
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        done = len(self.history) * steps + self.steps
        return LambdaLR(self.optimizer, lambda step: self._compute_rate(step, steps), last_epoch=done - 1)

    def _compute_rate(self, step: int, steps: int) -> float:
        return compute_cosine_factor(step / (steps * self.epochs)) if self.config.schedule == "cosine" else 1.0


def derive_dropout_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """Derive the seed of a step's dropout in the process of a given rank."""
    return int(np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)[0] >> 1)
