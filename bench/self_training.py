"""Self-training against a bare PyTorch loop on tensors in memory, and what its memory depends on.

    python bench/self_training.py --images DIR/JPEGImages

Both sides train the same network on the same batches, from the same weights, in one process and in turn: fastcomus
reads JPEG files and class maps, crops and mirrors them in threads; the bare loop finds the batches in memory, takes
the cross-entropy and makes Adam's step. Their losses are compared first. Class maps are made of the images (bright and
dark), since their content does not matter here. Then the peak memory of trainings of more images and of more clusters,
each in a process of its own. Medians over the rounds, from the slowest to the fastest; writes the same as JSON.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import measurement
import numpy as np
import torch
from measurement import describe_machine, write_numbers
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--preset", default="offline", help="whose network, crops and batch")
    parser.add_argument("--steps", type=int, default=4, help="training steps in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, default=14)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--memory-of", type=int, nargs=2, metavar=("IMAGES", "K"), help="only train, and print the peak"
    )
    parser.add_argument("--json", type=Path, default=Path("bench/results/self_training.json"))
    arguments = parser.parse_args()
    config = replace(get_preset_config(arguments.preset).train, schedule="constant", cache_gb=0.0)
    if arguments.memory_of:
        count, k = arguments.memory_of
        print(measure_training_peak(arguments.images, count, k, config, arguments.device, arguments.workers))
        return
    numbers = measure_throughput(arguments, config)
    numbers["peak_mib"] = {
        f"{count} images, k = {k}": measure_memory(count, k) for count, k in ((100, 14), (400, 14), (100, 200))
    }
    write_numbers(arguments.json, numbers)
    Console(width=120).print(build_table(numbers, arguments))


def measure_throughput(arguments: argparse.Namespace, config: TrainConfig) -> dict:
    backend = select(arguments.device)
    count = arguments.steps * config.batch_size
    read = make_reader(arguments.images, count)
    sides: dict[str, Callable[[], Iterator[float]]] = {
        "fastcomus": lambda: train_fastcomus(read, count, arguments, config),
        "bare loop": lambda: train_bare(read, count, arguments, config),
    }
    losses = {name: list(run())[-1] for name, run in sides.items()}  # warms up both
    agree = abs(losses["fastcomus"] - losses["bare loop"]) <= 1e-3 * losses["bare loop"]
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, run in sides.items():
            steps = run()
            next(steps)  # what is read before the first step is not counted, nor is the network's making
            started = time.perf_counter()
            for _ in steps:
                pass
            rates[name].append((count - config.batch_size) / (time.perf_counter() - started))
    return {
        "device": str(backend.device),
        **describe_machine(str(backend.device), "torchvision", "timm"),
        "losses": losses,
        "losses_agree": agree,
        "images_per_s": rates,
        "ratio": statistics.median(rates["fastcomus"]) / statistics.median(rates["bare loop"]),
        "ratio_of_each_round": [a / b for a, b in zip(rates["fastcomus"], rates["bare loop"], strict=True)],
    }


def make_reader(folder: Path, count: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    found = find_images(folder)
    files = [found.root / name for name in found.names]

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = read_image(files[index % len(files)], MAX_PIXELS)
        return pixels, (pixels.mean(axis=2) > 128).astype(np.uint8)

    return read


def train_fastcomus(
    read: Callable[[int], tuple[np.ndarray, np.ndarray]], count: int, arguments: argparse.Namespace, config: TrainConfig
) -> Iterator[float]:
    """The mean loss so far, after every step."""
    training = SelfTraining(arguments.k, config, 1, SEED, select(arguments.device))
    for _ in training.train(read, count, arguments.workers):
        yield training.history[-1].loss if training.history else 0.0


def train_bare(
    read: Callable[[int], tuple[np.ndarray, np.ndarray]], count: int, arguments: argparse.Namespace, config: TrainConfig
) -> Iterator[float]:
    device = select(arguments.device).device
    precision = choose_precision(config.precision, device)
    side, epoch = align_side(config.train_size, config.output_stride), shuffle_epoch(count, config.batch_size, SEED, 0)
    batches = list(augment_batches(read, epoch.batches, epoch.seeds, config, side, arguments.workers))
    torch.manual_seed(SEED)
    network = build_segmenter(config.backbone, config.backbone_weights, arguments.k, config.output_stride)
    network = network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    total = torch.zeros((), device=device)
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        with use_precision(device, precision):
            logits = enlarge_logits(network(images), images.shape)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach()
        yield float(total) / len(batches)


def measure_memory(count: int, k: int) -> float:
    command = [sys.executable, *sys.argv, "--memory-of", str(count), str(k)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_training_peak(images: Path, count: int, k: int, config: TrainConfig, device: str, workers: int) -> float:
    """Peak resident memory of a process that trains for one epoch."""
    for _ in SelfTraining(k, config, 1, SEED, select(device)).train(make_reader(images, count), count, workers):
        pass
    return measurement.measure_peak_mib()


def build_table(numbers: dict, arguments: argparse.Namespace) -> Table:
    made = Table(
        "what", "measured", title=f"preset {arguments.preset}, {numbers['hardware']}, {arguments.workers} threads"
    )
    for name, rates in numbers["images_per_s"].items():
        made.add_row(name, f"{statistics.median(rates):.2f} images/s ({min(rates):.2f} to {max(rates):.2f})")
    spread = numbers["ratio_of_each_round"]
    made.add_row("fastcomus / bare loop", f"{numbers['ratio']:.3f} ({min(spread):.3f} to {max(spread):.3f})")
    losses = " and ".join(f"{loss:.4f}" for loss in numbers["losses"].values())
    made.add_row("losses", f"{losses}: {'equal within 0.1 %' if numbers['losses_agree'] else 'NOT EQUAL'}")
    for name, peak in numbers["peak_mib"].items():
        made.add_row(f"peak memory, {name}", f"{peak:.0f} MiB")
    return made


if __name__ == "__main__":
    main()
