"""Training of a saliency network on photographs alone, with labels from priors that are first refined.

D. T. Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision", NeurIPS 2019:
a network trained on the noisy maps of a hand-made prior is less noisy than they are, because it cannot fit the noise.
Its predictions, averaged over epochs, are better labels; those of several priors are fused.

Different here:
- one network with a map per prior refines all priors at once; the paper trains one network per prior.
- it learns from the images on which the priors agree most clearly.
- no conditional random field smooths its maps.
- the final network learns the mean of the refined maps and the priors' own, whose outlines are better, again from the
  images where these agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torchvision.transforms.v2 import functional as transforms

from fastcomus.backends.cpu import compute_otsu_threshold
from fastcomus.backends.read_ahead import read_ahead
from fastcomus.config import SaliencyConfig
from fastcomus.networks.augmentation import augment_batches, shuffle_epoch
from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.determinism import use_determinism
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.frozen_layers import freeze_layers
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.networks.schedules import compute_batch_starts, compute_cosine_factor
from fastcomus.objects.saliency.losses import compute_hybrid_loss
from fastcomus.objects.saliency.network_map import SaliencyNetwork
from fastcomus.objects.saliency.proposer import resize_to_square
from fastcomus.objects.saliency.pyramid import PyramidNetwork

MAP_SIDE = 128  # L: maps of priors and of the refinement are stored as squares of this side

ReadPixels = Callable[[int], np.ndarray]
ReadMaps = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class EpochState:
    """The state from which training resumes after an epoch; `loss` is the mean over the images of that epoch."""

    epochs: int
    loss: float
    state: dict[str, Any]


def train_network(
    read: ReadPixels,
    labels: ReadMaps,
    count: int,
    maps: int,
    config: SaliencyConfig,
    seed: int,
    device: torch.device,
    is_deterministic: bool,
    workers: int,
    resume: EpochState | None,
    on_images: Callable[[int], None],
) -> Iterator[tuple[SaliencyNetwork, EpochState]]:
    """Train a saliency network.

    Every label map is cut at Otsu's threshold, since the priors' scales differ and networks learn binary labels better
    than soft ones. The loss is BASNet's hybrid loss at every scale of the network. All random choices of an epoch
    depend on (seed, epoch) alone, so that resumed training ends with the same weights as uninterrupted training.

    Args:
        read: Returns the pixels (H, W, 3) uint8 of an image by its index; called from several threads.
        labels: Returns the label maps (maps, L, L) uint8 of an image, 255 for 1; called from several threads.
        count: Number of images.
        maps: Maps per image; above 1 the settings of the refinement are used.
        config: The settings.
        seed: For all random choices.
        device: Where the network is trained.
        is_deterministic: Whether it is trained to the same bytes every time, see `use_determinism`.
        workers: Number of threads.
        resume: The state to resume from.
        on_images: Called with the number of images in each step.

    Yields:
        The network and the state after every epoch.
    """
    refines = maps > 1
    torch.manual_seed(seed)
    name, epochs = (config.refine_backbone, config.refine_epochs) if refines else (config.network, config.epochs)
    network = SaliencyNetwork(name, config.size, maps, pretrained=resume is None).to(device)
    network = network.to(memory_format=torch.channels_last)
    body = network.body
    frozen = freeze_layers(body.backbone, config.frozen_stride) if isinstance(body, PyramidNetwork) else []
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    done = 0
    if resume is not None:
        done = resume.epochs
        network.load_state_dict(resume.state["network"])
        optimizer.load_state_dict(resume.state["optimizer"])
    precision = choose_precision(config.precision, device)
    steps = len(compute_batch_starts(count, config.batch_size))
    scheduler = LambdaLR(
        optimizer, lambda step: compute_cosine_factor(step / (steps * epochs)), last_epoch=done * steps - 1
    )

    side = network.fit_side(min(config.train_size or config.size, config.size))

    def sample(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read(index)
        return pixels, compute_pixel_labels(labels(index), pixels.shape[:2])

    for epoch in range(done, epochs):
        order = shuffle_epoch(count, config.batch_size, seed, epoch)
        torch.manual_seed(int(order.seeds[0]))  # for backbones with dropout
        network.train()
        for layer in frozen:
            layer.eval()
        total, seen = 0.0, 0
        for images, target in augment_batches(sample, order.batches, order.seeds, config, side, workers):
            with use_determinism(device, is_deterministic):
                with use_precision(device, precision), use_cpu_shortcuts(device):
                    found = network.compute_all_logits(images.to(device))
                truth = split_into_planes(target.to(device), maps)
                loss = torch.stack([compute_hybrid_loss(logits.float(), truth) for logits in found]).sum()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            scheduler.step()
            total, seen = total + float(loss.detach()) * len(images), seen + len(images)
            on_images(len(images))
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        yield network, EpochState(epoch + 1, total / seen, state)


@torch.inference_mode()
def predict_maps(
    network: SaliencyNetwork, read: ReadPixels, count: int, batch: int, precision: str, workers: int
) -> Iterator[np.ndarray]:
    """Predict the maps of `count` images, `batch` at a time; threads call `read`, as for `train_network`.

    Yields:
        For every image (maps, L, L) uint8, 255 for 1.
    """
    network = with_folded_batch_norms(network.eval(), torch.uint8)

    def prepare(index: int) -> torch.Tensor:
        return resize_to_square(read(index), network.side)

    images = read_ahead(prepare, range(count), workers)
    for start in range(0, count, batch):
        stacked = torch.stack([next(images) for _ in range(start, min(start + batch, count))])
        with use_precision(network.device, choose_precision(precision, network.device)):
            logits = network(stacked.to(network.device))
        maps = transforms.resize(torch.sigmoid(logits.float()), [MAP_SIDE, MAP_SIDE], antialias=True)
        yield from (maps.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def shrink_map(saliency: np.ndarray) -> np.ndarray:
    """Shrink a saliency map (H, W) float32 in [0, 1] to (L, L) uint8, 255 for 1."""
    small = transforms.resize(torch.from_numpy(saliency)[None], [MAP_SIDE, MAP_SIDE], antialias=True)[0]
    shrunk: np.ndarray = (small.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return shrunk


def average_maps(before: np.ndarray | None, now: np.ndarray, weight: float) -> np.ndarray:
    """Update the average of maps (uint8; None at first) over epochs; `weight`: the share of `before`, in [0, 1]."""
    if before is None:
        return now
    return np.rint(weight * before.astype(np.float32) + (1 - weight) * now).astype(np.uint8)


def fuse_maps(maps: np.ndarray) -> np.ndarray:
    """Average the maps (P, L, L) uint8 of an image into one label (1, L, L) uint8."""
    fused: np.ndarray = np.rint(maps.astype(np.float32).mean(axis=0, keepdims=True))
    return fused.astype(np.uint8)


def compute_confidence(maps: np.ndarray) -> float:
    """Measure, in [0, 1], how clearly the maps (P, L, L) uint8 of an image agree on an object.

    It is the mean of their fusion above Otsu's threshold less the mean below; where they disagree the fusion is grey.
    On photographs it correlates with the IoU of the label (0.6).
    """
    label = fuse_maps(maps)[0].astype(np.float32) / 255
    inside = label > compute_otsu_threshold(label)
    return float(label[inside].mean() - label[~inside].mean()) if inside.any() else 0.0


def compute_pixel_labels(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Cut maps (P <= 8, L, L) uint8 at Otsu's threshold and pack them into uint8 of `shape`, bit p for map p."""
    enlarged = transforms.resize(torch.from_numpy(maps), list(shape), antialias=False).numpy()
    labels = np.zeros(shape, np.uint8)
    for place, (small, large) in enumerate(zip(maps, enlarged, strict=True)):
        threshold = compute_otsu_threshold(small.astype(np.float32) / 255) * 255
        labels |= (large > threshold).astype(np.uint8) << place
    return labels


def split_into_planes(labels: torch.Tensor, maps: int) -> torch.Tensor:
    """Unpack labels (N, S, S) of `compute_pixel_labels` to (N, maps, S, S) float32, 0 or 1."""
    return torch.stack([labels >> place & 1 for place in range(maps)], dim=1).float()
