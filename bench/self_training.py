"""Self-training against a bare PyTorch loop on tensors in memory; its memory is in bench/scale.py.

    python -m bench.self_training --data DIR/JPEGImages

Both sides train the same network on the same batches, from the same weights, in one process and in turn: fastcomus
reads JPEG files and class maps, crops and mirrors them in threads; the bare loop finds the batches in memory, takes
the cross-entropy and makes Adam's step. Their losses are compared. Class maps are made of the images (bright and dark),
since their content does not matter here.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.config import TrainConfig
from fastcomus.images.folder import find_images
from fastcomus.images.reading import read_image
from fastcomus.networks.augmentation import augment_batches, shuffle_epoch
from fastcomus.networks.fixed_padding import align_side
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.segmentation.segmenter import build_segmenter, enlarge_logits
from fastcomus.segmentation.training import SelfTraining
from fastcomus.settings import get_preset_config

MAX_PIXELS = 100_000_000
SEED = 0
Read = Callable[[int], tuple[np.ndarray, np.ndarray]]


def main() -> None:
    parser = harness.make_parser(__doc__, "self_training", data=None, device="auto", repeats=5, workers=2)
    parser.add_argument("--preset", default="offline", help="whose network, crops and batch")
    parser.add_argument("--steps", type=int, default=4, help="training steps in a turn")
    parser.add_argument("--k", type=int, default=14)
    arguments = parser.parse_args()
    config = replace(get_preset_config(arguments.preset).train, schedule="constant", cache_gb=0.0)
    device = harness.select_device(arguments.device)
    numbers = measure(arguments, config, device)
    rows = [{"images/s": name, **harness.summarise(rates)} for name, rates in numbers["images_per_s"].items()]
    rows = [row | {"loss": numbers["losses"][row["images/s"]]} for row in rows]
    rows.append({"images/s": "ratio", **harness.summarise(numbers["ratio_of_each_turn"])})
    agree = "equal within 0.1 %" if numbers["losses_agree"] else "NOT EQUAL"
    title = f"preset {arguments.preset}; losses {agree}"
    harness.finish(arguments, title, {"device": device, **numbers}, "torchvision", "timm", shown=rows)


def measure(arguments: argparse.Namespace, config: TrainConfig, device: str) -> harness.Row:
    count = arguments.steps * config.batch_size
    read = make_reader(arguments.data, count)
    trainings = {"fastcomus": train_with_fastcomus, "bare loop": train_with_bare_loop}

    def start(name: str) -> Iterator[float]:
        steps = trainings[name](read, count, arguments.k, arguments.workers, config, device)
        next(steps)  # what is read before the first step is not counted, nor is the network's making
        return steps

    times = harness.time_sides(dict.fromkeys(trainings, finish), arguments.repeats, device, prepare=start)
    rates = {name: [(count - config.batch_size) / wall for wall in one.wall_s] for name, one in times.items()}
    losses = {name: one.result for name, one in times.items()}
    return {
        "losses": losses,
        "losses_agree": abs(losses["fastcomus"] - losses["bare loop"]) <= 1e-3 * losses["bare loop"],
        "images_per_s": rates,
        "ratio": statistics.median(rates["fastcomus"]) / statistics.median(rates["bare loop"]),
        "ratio_of_each_turn": [a / b for a, b in zip(rates["fastcomus"], rates["bare loop"], strict=True)],
    }


def finish(steps: Iterator[float]) -> float:
    return list(steps)[-1]


def make_reader(folder: Path, count: int) -> Read:
    found = find_images(folder)
    files = [found.root / name for name in found.names]

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read_image(files[index % len(files)], MAX_PIXELS)
        return pixels, (pixels.mean(axis=2) > 128).astype(np.uint8)

    return read


def train_with_fastcomus(
    read: Read, count: int, k: int, workers: int, config: TrainConfig, device: str
) -> Iterator[float]:
    """The mean loss so far, after every step."""
    training = SelfTraining(k, config, 1, SEED, select(device))
    for _ in training.train(read, count, workers):
        yield training.history[-1].loss if training.history else 0.0


def train_with_bare_loop(
    read: Read, count: int, k: int, workers: int, config: TrainConfig, device: str
) -> Iterator[float]:
    place = select(device).device
    precision = choose_precision(config.precision, place)
    side, epoch = align_side(config.train_size, config.output_stride), shuffle_epoch(count, config.batch_size, SEED, 0)
    batches = list(augment_batches(read, epoch.batches, epoch.seeds, config, side, workers))
    torch.manual_seed(SEED)
    network = build_segmenter(config.backbone, config.backbone_weights, k, config.output_stride).to(place).train()
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    total = torch.zeros((), device=place)
    for images, labels in batches:
        images, labels = images.to(place), labels.to(place)
        with use_precision(place, precision):
            logits = enlarge_logits(network(images), images.shape)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()
        yield float(total) / len(batches)


if __name__ == "__main__":
    main()
