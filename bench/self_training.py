"""Self-training against a bare PyTorch loop on tensors in memory, and what its memory depends on.

    python -m bench.self_training --data DIR/JPEGImages

Both sides train the same network on the same batches, from the same weights, in one process and in turn: fastcomus
reads JPEG files and class maps, crops and mirrors them in threads; the bare loop finds the batches in memory, takes
the cross-entropy and makes Adam's step. Their losses are compared. Class maps are made of the images (bright and dark),
since their content does not matter here. Then the peak memory of trainings of more images and of more clusters, each in
a process of its own.
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
    parser.add_argument("--memory", nargs="*", default=["100,14", "400,14", "100,200"], help="IMAGES,K each")
    arguments = parser.parse_args()
    config = replace(get_preset_config(arguments.preset).train, schedule="constant", cache_gb=0.0)
    device = harness.select_device(arguments.device)
    numbers = {"device": device, **harness.describe_run(device, "torchvision", "timm")}
    numbers |= measure_throughput(arguments, config, device)
    given = (config, device, arguments.workers)
    peaks = numbers["peak_mib"] = {}
    for count, k in (map(int, one.split(",")) for one in arguments.memory):
        peaks[f"{count} images, k = {k}"] = harness.run_apart(measure_peak, arguments.data, count, k, *given)
    harness.write_json(arguments.json, numbers)
    spreads = {**numbers["images_per_s"], "fastcomus / bare loop": numbers["ratio_of_each_turn"]}
    rows = [{"what": name, **harness.summarise(values)} for name, values in spreads.items()]
    rows += [{"what": f"loss of {name}", "median": loss} for name, loss in numbers["losses"].items()]
    rows += [{"what": f"peak MiB, {name}", "median": peak} for name, peak in peaks.items()]
    columns = {"what": "{what}", "images/s": "{median:.4g}", "least": "{least:.3f}", "most": "{most:.3f}"}
    agree = "equal within 0.1 %" if numbers["losses_agree"] else "NOT EQUAL"
    harness.print_table(f"preset {arguments.preset}, {numbers['hardware']}; losses {agree}", rows, columns)


def measure_throughput(arguments: argparse.Namespace, config: TrainConfig, device: str) -> harness.Row:
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


def measure_peak(images: Path, count: int, k: int, config: TrainConfig, device: str, workers: int) -> float:
    """Peak resident memory of a process that trains for one epoch."""
    for _ in SelfTraining(k, config, 1, SEED, select(device)).train(make_reader(images, count), count, workers):
        pass
    return harness.measure_peak_mib()


if __name__ == "__main__":
    main()
