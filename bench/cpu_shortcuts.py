"""Training steps in float32 and bf16 and predictions in bf16 on a CPU, with networks/cpu_shortcuts.py and without.

    python -m bench.cpu_shortcuts

Images are random; both sides take turns on the same network, by CPU time. Gradients are compared first, and logits bit
by bit.
"""

from __future__ import annotations

import statistics
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from bench import harness
from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.precision import use_precision
from fastcomus.segmentation.segmenter import build_segmenter

CPU = torch.device("cpu")
SIDES = {"shortcuts": True, "torch alone": False}


def main() -> None:
    parser = harness.make_parser(__doc__, "cpu_shortcuts", repeats=5, threads=1)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--side", type=int, default=321, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = build_segmenter(arguments.backbone, "", 14, 16)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    images = torch.randint(0, 255, (arguments.batch, 3, arguments.side, arguments.side), dtype=torch.uint8)

    def train(is_fast: bool, precision: str) -> torch.Tensor:
        network.train().zero_grad()
        with use_precision(CPU, precision), choose_context(is_fast):
            logits = network(images)
        logits.float().square().mean().backward()
        return torch.cat([one.grad.ravel() for one in network.parameters()])

    @torch.inference_mode()
    def predict(is_fast: bool, precision: str) -> torch.Tensor:
        with use_precision(CPU, precision), choose_context(is_fast):
            return network.eval()(images).float()

    numbers: harness.Row = {**harness.describe_run("cpu"), "threads": arguments.threads, "batch": arguments.batch}
    shown = []
    for name, work, precision in (
        ("training step, float32", train, "float32"),
        ("training step, bf16", train, "bf16"),
        ("prediction, bf16", predict, "bf16"),
    ):
        sides = {side: partial(work, is_fast, precision) for side, is_fast in SIDES.items()}
        times = harness.time_sides(sides, arguments.repeats)
        fast, plain = (times[side].result for side in SIDES)
        each = {side: 1000 * statistics.median(times[side].cpu_s) / arguments.batch for side in SIDES}
        ratio = each["torch alone"] / each["shortcuts"]
        difference = float((fast - plain).norm() / plain.norm())
        numbers[name] = {"cpu_ms_per_image": each, "ratio": ratio, "relative_difference": difference}
        shown.append({"what": name, **each, "ratio": ratio, "relative difference": difference})
    harness.finish(arguments, f"CPU milliseconds an image, {arguments.backbone}", numbers, shown=shown)


def choose_context(is_fast: bool) -> AbstractContextManager[Any]:
    return use_cpu_shortcuts(CPU) if is_fast else nullcontext()


if __name__ == "__main__":
    main()
