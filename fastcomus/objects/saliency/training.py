"""A saliency network from photographs alone: priors, their refinement, and a network that learns what they agree on.

D. T. Nguyen et al., "DeepUSPS: Deep Robust Unsupervised Saliency Prediction With Self-Supervision", NeurIPS 2019:
a network that is trained on the noisy maps of a hand-made prior is less noisy than they are, because it cannot explain
the noise; its predictions, averaged over epochs, are better labels; those of several priors are fused. Different here:
one network with a map per prior refines all of them at once, where the paper trains one per prior; it learns from the
images on which the priors agree most clearly; no conditional random field smooths its maps; and the last network, the
one that stays, learns the mean of the refined maps and of the priors' own, which know the outlines better, again from
the images where these agree.
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
from fastcomus.networks.augmentation import augment_batches, compute_batch_starts, shuffle_epoch
from fastcomus.networks.bf16_on_cpu import use_bf16_shortcuts
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.networks.schedules import compute_cosine_factor
from fastcomus.objects.saliency.losses import compute_hybrid_loss
from fastcomus.objects.saliency.network_map import SaliencyNetwork
from fastcomus.objects.saliency.proposer import resize_to_square

MAP_SIDE = 128  # maps of priors and of refinement are kept as squares of this side

ReadPixels = Callable[[int], np.ndarray]
ReadMaps = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class EpochState:
    """All that is needed to go on after an epoch. `loss`: the mean over its images."""

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
    workers: int,
    resume: EpochState | None,
    on_images: Callable[[int], None],
) -> Iterator[tuple[SaliencyNetwork, EpochState]]:
    """Train on labels (maps, L, L) uint8, 255 for 1, of `count` images; yields network and state after every epoch.

    Every map is cut at Otsu's threshold: the priors' scales differ, and networks learn clear labels better than soft
    ones. The loss is BASNet's hybrid one, at every scale that the network gives.
    `read(i)`: pixels (H, W, 3) uint8, called from `workers` threads. Every random choice of an epoch comes from (seed,
    epoch): training that resumes ends with the same weights as training that was never interrupted.
    """
    refines = maps > 1
    torch.manual_seed(seed)
    name, epochs = (config.refine_backbone, config.refine_epochs) if refines else (config.network, config.epochs)
    network = SaliencyNetwork(name, config.size, maps, pretrained=resume is None).to(device)
    network = network.to(memory_format=torch.channels_last)
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

    def sample(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read(index)
        return pixels, _compute_pixel_labels(labels(index), pixels.shape[:2])

    for epoch in range(done, epochs):
        order = shuffle_epoch(count, config.batch_size, seed, epoch)
        torch.manual_seed(int(order.seeds[0]))  # for backbones with dropout
        network.train()
        total, seen = 0.0, 0
        for images, target in augment_batches(sample, order.batches, order.seeds, config, network.side, workers):
            with use_precision(device, precision), use_bf16_shortcuts(device, precision):
                found = network.compute_all_logits(images.to(device))
            truth = _split_into_planes(target.to(device), maps)
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
    """What the network says of every image: (maps, L, L) uint8, 255 for 1."""
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
    """A saliency map (H, W) float32 in [0, 1] as it is kept: (L, L) uint8, 255 for 1."""
    small = transforms.resize(torch.from_numpy(saliency)[None], [MAP_SIDE, MAP_SIDE], antialias=True)[0]
    return (small.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def average_maps(before: np.ndarray | None, now: np.ndarray, weight: float) -> np.ndarray:
    """The moving average of maps (uint8) over epochs: `weight` times `before`, the rest `now`."""
    if before is None:
        return now
    return np.rint(weight * before.astype(np.float32) + (1 - weight) * now).astype(np.uint8)


def fuse_maps(maps: np.ndarray) -> np.ndarray:
    """One label (1, L, L) uint8 from several maps (P, L, L) uint8 of an image: their mean."""
    return np.rint(maps.astype(np.float32).mean(axis=0, keepdims=True)).astype(np.uint8)


def compute_confidence(maps: np.ndarray) -> float:
    """How clearly the maps (P, L, L) uint8 of an image agree on an object, in [0, 1]: the mean of their fusion inside
    Otsu's threshold less that outside. Where they disagree the fusion is grey. (On photographs it goes with the IoU of
    the label: correlation 0.6.)
    """
    label = fuse_maps(maps)[0].astype(np.float32) / 255
    inside = label > compute_otsu_threshold(label)
    return float(label[inside].mean() - label[~inside].mean()) if inside.any() else 0.0


def _compute_pixel_labels(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) uint8 at an image's size: of each of the maps (P, L, L), cut at Otsu's threshold, a bit."""
    enlarged = transforms.resize(torch.from_numpy(maps), list(shape), antialias=False).numpy()
    labels = np.zeros(shape, np.uint8)
    for place, (small, large) in enumerate(zip(maps, enlarged, strict=True)):
        threshold = compute_otsu_threshold(small.astype(np.float32) / 255) * 255
        labels |= (large > threshold).astype(np.uint8) << place
    return labels


def _split_into_planes(labels: torch.Tensor, maps: int) -> torch.Tensor:
    """The inverse for a batch (N, S, S): (N, maps, S, S) float32, 0 or 1."""
    return torch.stack([labels >> place & 1 for place in range(maps)], dim=1).float()
