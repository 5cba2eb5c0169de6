"""The custom kernels against what a user would call instead, on a GPU or, built by g++, on the CPU.

    python -m bench.kernels                 # on the CUDA device, compiled by CuPy
    python -m bench.kernels --device cpu --emulator tests/cuda_on_cpu/cpu_kernels.py    # the same sources on one core

The latter is a check of results, and a rough comparison: `--emulator` is a Python file with a class CpuKernels.

Images are 500 x 375 by default, the usual size of VOC, with a box each. Crops: torchvision's `resize(antialias=True)`
box by box, and `roi_align` of all boxes at once, which does not antialias (its distance from the former stands beside
it). Masks: Otsu's threshold and torchvision's `masks_to_boxes`, map by map. Class maps: torch's indexing, image by
image. Results are compared first; then the sides take turns. On the CPU every thread of `mask_boxes` is a fiber, whose
switching takes most of the time there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision import ops
from torchvision.transforms.v2 import functional as transforms

from bench import harness
from fastcomus.backends import gpu_images, gpu_objects, ragged_batches
from fastcomus.backends.cpu import CpuBackend, compute_otsu_threshold
from fastcomus.backends.gpu import GpuBackend
from fastcomus.backends.kernel_loader import CupyKernels, Kernels

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # ImageNet's, of pixels in [0, 255]


@dataclass(frozen=True)
class Inputs:
    """`images`: (H, W, 3) uint8, a box and a saliency map for each, on the device; `size`: side of a crop."""

    images: list[torch.Tensor]
    boxes: torch.Tensor
    maps: list[torch.Tensor]
    kernels: Kernels
    device: torch.device
    size: int
    repeats: int


def main() -> None:
    parser = harness.make_parser(__doc__, "kernels", device="cuda", count=0, repeats=9)
    parser.add_argument("--emulator", type=Path, help="Python file with CpuKernels(folder, *flags), for --device cpu")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--size", type=int, default=256, help="side of a crop")
    arguments = parser.parse_args()
    device = torch.device(harness.select_device(arguments.device))
    if device.type == "cpu" and not arguments.emulator:
        parser.error("--device cpu needs --emulator")
    count = arguments.count or (512 if device.type == "cuda" else 16)
    with tempfile.TemporaryDirectory() as scratch:
        kernels: Kernels = CupyKernels()
        if device.type == "cpu":
            kernels = harness.load_file(arguments.emulator).CpuKernels(Path(scratch), "-O3", "-march=native")
        made = make_images(count, arguments.height, arguments.width, device)
        inputs = Inputs(*made, kernels, device, arguments.size, arguments.repeats)
        parts = (benchmark_crops, benchmark_masks, benchmark_objects, benchmark_class_maps)
        rows = [row for part in parts for row in part(inputs)]
    size = f"{arguments.width} x {arguments.height}"
    numbers = {"device": device.type, "images": count, "size": size, "rows": rows}
    harness.finish(arguments, f"Images a second, {count} of {size}", numbers, "torchvision", "cupy-cuda13x")


def make_images(
    count: int, height: int, width: int, device: torch.device
) -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """What `Inputs` begins with."""
    rng = np.random.default_rng(0)
    images, boxes, maps = [], [], []
    y, x = np.mgrid[:height, :width]
    for _ in range(count):
        smooth = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        wide = torch.nn.functional.interpolate(torch.from_numpy(smooth).permute(2, 0, 1)[None].float(), (height, width))
        images.append(wide[0].permute(1, 2, 0).to(torch.uint8).contiguous().to(device))
        x0, y0 = int(rng.integers(0, width // 4)), int(rng.integers(0, height // 4))
        x1, y1 = (int(rng.integers(side * 3 // 4, side + 1)) for side in (width, height))
        boxes.append([x0, y0, x1, y1])
        distance = np.hypot((x - width / 2) / width, (y - height / 2) / height)
        noisy = np.clip(1 - 2 * distance + rng.normal(0, 0.1, (height, width)), 0, 1)
        maps.append(torch.from_numpy(noisy.astype(np.float32)).to(device))
    return images, torch.tensor(boxes, dtype=torch.int32, device=device), maps


def benchmark_crops(inputs: Inputs) -> list[harness.Row]:
    device, size, count = inputs.device, inputs.size, len(inputs.images)
    packed = ragged_batches.pack_images(inputs.images, device)
    owners = torch.arange(count, dtype=torch.int32, device=device)
    mean, std = (torch.tensor(one, device=device).view(3, 1, 1) for one in (MEAN, STD))
    planes = [one.permute(2, 0, 1)[None].float() for one in inputs.images]
    places = inputs.boxes.tolist()
    with_index = torch.cat([torch.arange(count, device=device)[:, None].float(), inputs.boxes.float()], dim=1)
    stacked = torch.cat(planes)

    def by_kernel() -> torch.Tensor:
        return gpu_images.crop_resize(inputs.kernels, packed, inputs.boxes, owners, size, torch.float16, MEAN, STD)

    def by_resize() -> torch.Tensor:
        cut = [plane[..., y0:y1, x0:x1] for plane, (x0, y0, x1, y1) in zip(planes, places, strict=True)]
        resized = [transforms.resize(one, [size, size], antialias=True) for one in cut]
        return ((torch.cat(resized) - mean) / std).half()

    def by_roi_align() -> torch.Tensor:
        return ((ops.roi_align(stacked, with_index, size, aligned=False) - mean) / std).half()

    exact = by_resize().float() * std + mean
    others = {"crop_resize": by_kernel, "roi_align": by_roi_align}
    errors = {name: float((side().float() * std + mean - exact).abs().mean()) for name, side in others.items()}
    assert errors["crop_resize"] < 0.2, errors  # half precision keeps a tenth of a grey level
    box_bytes = sum(3 * (x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in places)
    moved = box_bytes * (1 + 1 / gpu_images.ROWS_PER_BAND) + count * 3 * size * size * 2
    sides = {"crop_resize": by_kernel, "resize(antialias=True)": by_resize, "roi_align": by_roi_align}
    return time_sides(inputs, "crops", sides, moved, errors)


def benchmark_masks(inputs: Inputs) -> list[harness.Row]:
    kernels, device = inputs.kernels, inputs.device
    packed = ragged_batches.pack_maps(inputs.maps, torch.float32, device)

    def by_kernel() -> torch.Tensor:
        return gpu_images.threshold_masks(kernels, packed, "otsu").boxes

    def by_torchvision() -> torch.Tensor:
        found = []
        for one in inputs.maps:
            mask = one > compute_otsu_threshold(one.cpu().numpy())
            mask.sum().item()
            found.append(ops.masks_to_boxes(mask[None]))
        return (torch.cat(found) + torch.tensor([0, 0, 1, 1], device=device)).int()

    assert (by_kernel() == by_torchvision()).all()
    pixels = sum(one.numel() for one in inputs.maps)
    sides = {"mask_boxes": by_kernel, "Otsu and masks_to_boxes, one by one": by_torchvision}
    rows = time_sides(inputs, "masks and boxes", sides, 9.0 * pixels)
    part = {"mask_boxes, largest part": lambda: gpu_images.threshold_masks(kernels, packed, "otsu", True).boxes}
    return rows + time_sides(inputs, "masks and boxes", part)


def benchmark_objects(inputs: Inputs) -> list[harness.Row]:
    """What `embed` does between its two networks: maps of 256 px to boxes, run lengths and crops."""
    kernels, device, size, resize = inputs.kernels, inputs.device, inputs.size, torch.nn.functional.interpolate
    coarse = [resize(one[None, None], (256, 256), mode="bilinear")[0] for one in inputs.maps]
    on_host = [one.cpu().numpy() for one in inputs.images], [one.cpu() for one in coarse]
    at_once = GpuBackend.images_at_once

    def in_batches(count: int) -> torch.Tensor:
        found = []
        for start in range(0, len(coarse), count):
            part = slice(start, start + count)
            found += gpu_objects.find_objects(kernels, device, inputs.images[part], coarse[part], "otsu", 400, size)
        return torch.tensor([one.boxes[0].tolist() for one in found])

    def by_cpu_backend() -> torch.Tensor:
        found = CpuBackend().find_objects(*on_host, "otsu", 400, size)
        return torch.tensor([one.boxes[0].tolist() for one in found])

    for at_a_time in (at_once, 1):
        assert (in_batches(at_a_time) == by_cpu_backend()).all()
    sides = {
        f"find_objects, {at_once} at once": lambda: in_batches(at_once),
        "find_objects, one by one": lambda: in_batches(1),
        "CPU backend, one thread": by_cpu_backend,
    }
    return time_sides(inputs, "maps to objects", sides)


def benchmark_class_maps(inputs: Inputs) -> list[harness.Row]:
    kernels, device = inputs.kernels, inputs.device
    found = gpu_images.threshold_masks(kernels, ragged_batches.pack_maps(inputs.maps, torch.float32, device), "otsu")
    count, sizes = len(inputs.maps), found.masks.host_sizes
    clusters = torch.arange(count, dtype=torch.int32, device=device) % 80
    nothing = torch.zeros(count, device=device)
    kept = torch.ones(count, dtype=torch.bool, device=device)
    first = torch.arange(count + 1, device=device)
    shapes = found.masks.split()

    def by_kernel() -> torch.Tensor:
        objects = (found.masks, nothing, found.boxes, clusters, kept, first, sizes)
        return gpu_images.assemble_masks(kernels, *objects, torch.uint8).values

    def by_torch() -> torch.Tensor:
        labels = []
        for shape, cluster in zip(shapes, clusters.tolist(), strict=True):
            one = torch.zeros(shape.shape, dtype=torch.uint8, device=device)
            one[shape.bool()] = cluster + 1
            labels.append(one.view(-1))
        return torch.cat(labels)

    assert (by_kernel() == by_torch()).all()
    pixels = sum(height * width for height, width in sizes)
    sides = {"assemble_masks": by_kernel, "torch, image by image": by_torch}
    return time_sides(inputs, "class maps", sides, 2.0 * pixels)


def time_sides(
    inputs: Inputs, what: str, sides: dict[str, Callable[[], torch.Tensor]], moved: float = 0.0, errors: Mapping = {}
) -> list[harness.Row]:
    """A row per side: images per second, and for the first one bytes per second, if it `moved` any."""
    rows: list[harness.Row] = []
    for side, times in harness.time_sides(sides, inputs.repeats, str(inputs.device)).items():
        rates = harness.summarise(len(inputs.images) / one for one in times.wall_s)
        speed = {"GB/s": moved / times.median_s / 1e9} if moved and not rows else {}
        error = {"mean error in grey levels": errors[side]} if side in errors else {}
        rows.append({"what": what, "side": side, **rates, **speed, **error})
    return rows


if __name__ == "__main__":
    main()
