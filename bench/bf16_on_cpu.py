"""Training steps and predictions in bf16 on a CPU, with the shortcuts of networks/bf16_on_cpu.py and without.

    python -m bench.bf16_on_cpu

Images are random; both sides take turns on the same network. Gradients are compared first, and logits bit by bit.
"""

from __future__ import annotations

import torch

from bench import harness
from fastcomus.networks.bf16_on_cpu import use_bf16_shortcuts
from fastcomus.networks.precision import use_precision
from fastcomus.segmentation.segmenter import build_segmenter

CPU = torch.device("cpu")
SIDES = {"shortcuts": "bf16", "torch alone": "none"}


def main() -> None:
    parser = harness.make_parser(__doc__, "bf16_on_cpu", repeats=5, threads=1)
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

    def train(shortcuts: str) -> torch.Tensor:
        network.train().zero_grad()
        with use_precision(CPU, "bf16"), use_bf16_shortcuts(CPU, shortcuts):
            logits = network(images)
        logits.float().square().mean().backward()
        return torch.cat([one.grad.ravel() for one in network.parameters()])

    @torch.inference_mode()
    def predict(shortcuts: str) -> torch.Tensor:
        with use_precision(CPU, "bf16"), use_bf16_shortcuts(CPU, shortcuts):
            return network.eval()(images).float()

    numbers: harness.Row = {"batch": arguments.batch}
    for name, work in (("training step", train), ("prediction", predict)):
        sides = {side: lambda work=work, shortcuts=shortcuts: work(shortcuts) for side, shortcuts in SIDES.items()}
        times = harness.time_sides(sides, arguments.repeats)
        fast, plain = (times[side].result for side in SIDES)
        each = {side: 1000 * times[side].median_s / arguments.batch for side in SIDES}
        ratio = each["torch alone"] / each["shortcuts"]
        difference = float((fast - plain).norm() / plain.norm())
        numbers[name] = {"ms_per_image": each, "ratio": ratio, "relative_difference": difference}
    shown = [{"what": name, **numbers[name]["ms_per_image"], **numbers[name]} for name in list(numbers)[1:]]
    harness.finish(arguments, f"ms an image, {arguments.backbone}, bf16", numbers, shown=shown)


if __name__ == "__main__":
    main()
