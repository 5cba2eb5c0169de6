"""Training steps and predictions in bf16 on a CPU, with the shortcuts of fastcomus/bf16_on_cpu.py and without.

    python bench/bf16_on_cpu.py

Images are random; both sides take turns on the same network. Gradients are compared first, and logits bit by bit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fastcomus.networks.bf16_on_cpu import use_bf16_shortcuts
from fastcomus.networks.precision import use_precision
from fastcomus.segmentation.segmenter import build_segmenter

CPU = torch.device("cpu")
SIDES = {"shortcuts": "bf16", "torch alone": "none"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--side", type=int, default=321, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("bench/results/bf16_on_cpu.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = build_segmenter(arguments.backbone, "", 14, 16)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images = torch.randint(0, 255, (arguments.batch, 3, arguments.side, arguments.side), dtype=torch.uint8)

    def training(shortcuts: AbstractContextManager) -> torch.Tensor:
        network.train().zero_grad()
        with use_precision(CPU, "bf16"), shortcuts:
            logits = network(images)
        logits.float().square().mean().backward()
        return torch.cat([one.grad.ravel() for one in network.parameters()])

    @torch.inference_mode()
    def prediction(shortcuts: AbstractContextManager) -> torch.Tensor:
        with use_precision(CPU, "bf16"), shortcuts:
            return network.eval()(images).float()

    numbers = {"torch": torch.__version__, "threads": arguments.threads, "batch": arguments.batch}
    made = Table("what", *SIDES, "times as fast", "difference", title=f"ms an image, {arguments.backbone}, bf16")
    for name, work in (("training step", training), ("prediction", prediction)):
        results, times = measure_sides(work, arguments.rounds)
        fast, plain = results.values()
        difference = float((fast - plain).norm() / plain.norm())
        each = {side: 1000 * statistics.median(of_side) / arguments.batch for side, of_side in times.items()}
        ratio = each["torch alone"] / each["shortcuts"]
        numbers[name] = {"ms_per_image": each, "ratio": ratio, "relative_difference": difference}
        made.add_row(name, *(f"{ms:.1f}" for ms in each.values()), f"{ratio:.2f}", f"{difference:.1e}")
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console(width=120).print(made)


def measure_sides(
    work: Callable[[AbstractContextManager], torch.Tensor], rounds: int
) -> tuple[dict[str, torch.Tensor], dict[str, list[float]]]:
    """What each side gives, from a first pass that is not timed, and seconds of every round."""
    results = {side: work(use_bf16_shortcuts(CPU, precision)) for side, precision in SIDES.items()}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, precision in SIDES.items():
            started = time.perf_counter()
            work(use_bf16_shortcuts(CPU, precision))
            times[side].append(time.perf_counter() - started)
    return results, times


if __name__ == "__main__":
    main()
