"""What each stage must move and compute per image, and how fast a GPU can be at most: writes bench/roofline.md.

    python -m bench.roofline

Operations of networks are counted by torch on tensors without data; their bytes are every layer's output written and
read once in bfloat16, and the weights once per batch. The other stages are counted by hand, as the column says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation import deeplabv3_resnet50

from fastcomus.backends.block_krylov import count_basis_columns
from fastcomus.backends.gpu_images import ROWS_PER_BAND
from fastcomus.objects.saliency.basnet import BASNet

WIDTH, HEIGHT = 500, 375  # an image of VOC
PIXELS = WIDTH * HEIGHT
BOX_WIDTH, BOX_HEIGHT = 320, 260  # of its object
FILE_BYTES = 80_000  # of its JPEG file
CROP = 256
ROWS, DIMENSION, K, NEIGHBORS = 118_000, 384, 80, 30  # COCO
LINKS = 50  # in a row of the symmetric graph
_LAYERS = (nn.Conv2d, nn.Linear, nn.LayerNorm)


@dataclass(frozen=True)
class Device:
    """Peaks from the data sheets: bytes/s of its memory and of the bus, operations/s (dense) by kind."""

    name: str
    memory: float
    bus: float
    operations: dict[str, float]


DEVICES = (
    Device("H100 SXM", 3.35e12, 55e9, {"bf16": 989e12, "float32": 67e12}),
    Device("RTX 4090", 1.008e12, 25e9, {"bf16": 165e12, "float32": 82.6e12}),
)


@dataclass(frozen=True)
class Stage:
    """Per image (or object): `moved` bytes, `operations` of a kind. `over_bus`: the bytes come from the host."""

    name: str
    moved: float
    operations: float
    kind: str
    note: str
    over_bus: bool = False


def main() -> None:
    page = format_page(list_stages())
    Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


def list_stages() -> list[Stage]:
    basnet = count_network(BASNet(), 256, 8)
    encoder = count_network(timm.create_model("vit_small_patch8_224", num_classes=0, img_size=CROP), CROP, 256)
    segmenter = count_network(deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21), 512, 16)
    shrinking = max(1.0, BOX_WIDTH / CROP), max(1.0, BOX_HEIGHT / CROP)
    taps = 2 * shrinking[0] * shrinking[1]  # source pixels per pixel of a crop
    box = 3 * BOX_WIDTH * BOX_HEIGHT * (1 + 1 / ROWS_PER_BAND)
    crop = 3 * CROP * CROP
    changes = 2 * BOX_WIDTH
    basis, blocks = count_basis_columns(K), 60
    return [
        Stage("image to the device", 3 * PIXELS, 0, "float32", "3 bytes a pixel, pinned", over_bus=True),
        Stage("file to the device", FILE_BYTES, 0, "float32", "instead of it, decoded there", over_bus=True),
        Stage("saliency, BASNet 256", *basnet, "bf16", "batches of 8"),
        Stage("map to image size", 8 * PIXELS, 8 * PIXELS, "float32", "written, and read by the next"),
        Stage("mask_boxes, Otsu", 9 * PIXELS, 12 * PIXELS, "float32", "read twice, mask written"),
        Stage("mask_boxes, largest part", 50 * PIXELS, 20 * PIXELS, "float32", "5 more passes; parents and counts"),
        Stage("run lengths", 2 * PIXELS + 4 * changes, 4 * PIXELS, "float32", "masks read twice, changes written"),
        Stage("changes to the host", 4 * changes, 0, "float32", "4 bytes each, two in a column", over_bus=True),
        Stage("crop_resize to uint8", box + crop, 12 * taps * crop / 3, "float32", f"{BOX_WIDTH} x {BOX_HEIGHT} box"),
        Stage("normalise in torch", crop * (1 + 4 + 4 + 4), 2 * crop, "float32", "uint8 in; float32 in two passes"),
        Stage("crop_resize to float16", box + 2 * crop, 14 * taps * crop / 3, "float32", "instead of the two above"),
        Stage("encoder, ViT-S/8 256", *encoder, "bf16", "batches of 256"),
        Stage("kNN, all pairs", 8 * ROWS, 2 * ROWS * DIMENSION, "float32", f"per object, of {ROWS:,}"),
        Stage(
            "eigenmaps, block solver",
            blocks * (LINKS * (8 + 64) + 4 * 4 * basis),
            blocks * (2 * LINKS * 16 + 8 * basis * 16),
            "float32",
            f"per object; k = {K}, {blocks} blocks of 16, {basis} vectors",
        ),
        Stage("k-means", 10 * 30 * 4 * K, 10 * 30 * 3 * K * K, "float32", f"per object; 10 runs of 30 steps, k = {K}"),
        Stage("assemble_masks", 2 * PIXELS, 8 * PIXELS, "float32", "one object over the whole image"),
        Stage("training, DeepLabv3 512", 3 * segmenter[0], 3 * segmenter[1], "bf16", "forwards and backwards"),
        Stage("prediction, DeepLabv3 512", *segmenter, "bf16", "batches of 16"),
        Stage("labels to image size", 4 * (K + 1) * 64 * 64 + 2 * PIXELS, 2.5 * (K + 1) * PIXELS, "float32", "fused"),
        Stage("confusion", 7 * PIXELS, 4 * PIXELS, "float32", "pairs written, counted by atomics"),
    ]


def count_network(body: nn.Module, side: int, batch: int) -> tuple[float, float]:
    """Bytes and operations per image of a pass over images of `side` pixels."""
    body = body.to("meta").eval()
    written = 0

    def count(_: nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal written
        written += output.numel()

    for layer in body.modules():
        if isinstance(layer, _LAYERS):
            layer.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        body(torch.empty(1, 3, side, side, device="meta"))
    weights = sum(one.numel() for one in body.parameters())
    return 2 * (2 * written + weights / batch), float(counter.get_total_flops())


def format_page(all_stages: list[Stage]) -> str:
    lines = [
        "# Roofline",
        "",
        "Written by `python -m bench.roofline`; nothing on this page was measured. For each stage: bytes moved and",
        "operations per image, the time that either takes at the device's peak (its two floors), and which one binds.",
        "A measured figure can be placed beside the bound: `bench/kernels.py` prints GB/s for the kernels.",
        "",
        f"An image has {WIDTH} x {HEIGHT} pixels and one object of {BOX_WIDTH} x {BOX_HEIGHT}, the usual size of VOC.",
        "Peaks are those of the data sheets, dense, and of a PCIe bus of the card's generation as met in practice:",
        "",
        "| | memory | bus | bf16 | float32 |",
        "|---|---|---|---|---|",
    ]
    for one in DEVICES:
        speeds = [f"{one.memory / 1e12:.2f} TB/s", f"{one.bus / 1e9:.0f} GB/s"]
        speeds += [f"{one.operations[kind] / 1e12:.0f} TFLOP/s" for kind in ("bf16", "float32")]
        lines.append(f"| {one.name} | {' | '.join(speeds)} |")
    for device in DEVICES:
        lines += [
            "",
            f"## {device.name}",
            "",
            "| stage | MB | GFLOP | bytes' floor, us | operations' floor, us | binds | at most, images/s | counted |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for stage in all_stages:
            by_bytes = stage.moved / (device.bus if stage.over_bus else device.memory) * 1e6
            by_operations = stage.operations / device.operations[stage.kind] * 1e6
            binds = "bus" if stage.over_bus else "memory" if by_bytes > by_operations else stage.kind
            lines.append(
                f"| {stage.name} | {stage.moved / 1e6:.3g} | {stage.operations / 1e9:.3g} | {by_bytes:.3g} "
                f"| {by_operations:.3g} | {binds} | {1e6 / max(by_bytes, by_operations):,.0f} | {stage.note} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
