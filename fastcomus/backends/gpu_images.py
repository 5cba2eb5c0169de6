"""Ragged batches on the device: crops, masks and class maps by the custom kernels, in one launch for all images.

"Ragged" means images of any sizes one after the other in one flat tensor. Functions with a parameter `kernels` launch
kernels through it and leave their results on the device, on torch's current stream, without waiting for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastcomus.backends.cpu import OTSU_BINS
from fastcomus.backends.kernel_loader import Kernels
from fastcomus.backends.machine import move_to_device

THREADS = 256  # in a block
ROWS_PER_BAND = 16  # of a crop in one thread: a box is read 1 + 1/16 times
_PIXELS_PER_THREAD = 8  # of masks and class maps
_MOST_BLOCKS = 4_096  # that share an image
_SUM_UNIT = 2.0**-32  # of `sums` in mask_boxes.cu
_CROP_KERNELS = {torch.float32: "float32", torch.float16: "float16", torch.uint8: "uint8"}


@dataclass(frozen=True)
class RaggedImages:
    """I colour images in one buffer.

    `pixels`: flat uint8. `layouts`: (I, 4) int64, where each begins and its row, column and channel strides in bytes.
    `sizes`: (height, width) of each, on the host.
    """

    pixels: torch.Tensor
    layouts: torch.Tensor
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RaggedMaps:
    """M maps of one value per pixel, in one buffer.

    `values`: flat. `offsets`: (M,) int64, where each begins. `sizes`: (M, 2) int32, height and width, on the device;
    `host_sizes`: the same on the host.
    """

    values: torch.Tensor
    offsets: torch.Tensor
    sizes: torch.Tensor
    host_sizes: tuple[tuple[int, int], ...]

    def to_host(self) -> RaggedMaps:
        """Copy the maps to host memory, and wait for the copy."""
        return RaggedMaps(self.values.cpu(), self.offsets.cpu(), self.sizes.cpu(), self.host_sizes)

    def split(self) -> list[torch.Tensor]:
        """Split into a view (H, W) of every map."""
        lengths = [height * width for height, width in self.host_sizes]
        parts = zip(self.values.split(lengths), self.host_sizes, strict=True) if lengths else ()
        return [part.view(size) for part, size in parts]


@dataclass(frozen=True)
class RaggedMasks:
    """M masks on the device.

    `masks`: uint8, 0 or 1. `areas`: (M,) int64 pixels. `boxes`: (M, 4) int32, x0 y0 x1 y1, half-open; undefined for an
    empty mask. `scores`: (M,) float32, mean saliency inside, in [0, 1].
    """

    masks: RaggedMaps
    areas: torch.Tensor
    boxes: torch.Tensor
    scores: torch.Tensor


def pack_images(images: Sequence[torch.Tensor | np.ndarray], device: torch.device) -> RaggedImages:
    """Pack images into one buffer on a device.

    Args:
        images: (H, W, 3) uint8 each, interleaved or planar in memory.
        device: Where the buffer is placed.

    Returns:
        The packed images.
    """
    planes = [_as_tensor(one).permute(2, 0, 1) for one in images]
    sizes = tuple((one.shape[1], one.shape[2]) for one in planes)
    starts = np.cumsum([0, *(one.numel() for one in planes)])[:-1]
    are_planar = [one.is_contiguous() for one in planes]
    strides = [
        (width, 1, height * width) if is_planar else (3 * width, 3, 1)
        for (height, width), is_planar in zip(sizes, are_planar, strict=True)
    ]
    layouts = np.array([(start, *stride) for start, stride in zip(starts, strides, strict=True)], np.int64)
    in_memory = [p if planar else p.permute(1, 2, 0) for p, planar in zip(planes, are_planar, strict=True)]
    return RaggedImages(
        _flatten_arrays(in_memory, torch.uint8, device), to_device(layouts.reshape(-1, 4), device), sizes
    )


def pack_maps(maps: Sequence[torch.Tensor | np.ndarray], dtype: torch.dtype, device: torch.device) -> RaggedMaps:
    """Pack maps into one buffer on a device.

    Args:
        maps: (H, W) each.
        dtype: Type of the buffer.
        device: Where the buffer is placed.

    Returns:
        The packed maps.
    """
    sizes = tuple((one.shape[0], one.shape[1]) for one in maps)
    return _lay_out_maps(_flatten_arrays(maps, dtype, device), sizes, device)


def allocate_maps(sizes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> RaggedMaps:
    """Allocate maps for a kernel to fill.

    Args:
        sizes: (height, width) of each map.
        dtype: Type of the buffer.
        device: Where the buffer is placed.

    Returns:
        The maps, with undefined values.
    """
    pixels = sum(height * width for height, width in sizes)
    return _lay_out_maps(torch.empty(pixels, dtype=dtype, device=device), tuple(sizes), device)


def crop_resize(
    kernels: Kernels,
    images: RaggedImages,
    boxes: torch.Tensor,
    box_images: torch.Tensor,
    size: int,
    dtype: torch.dtype,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> torch.Tensor:
    """Cut boxes out of images and resize them with antialiasing.

    Args:
        kernels: Launches the kernels.
        images: The images.
        boxes: (N, 4) int32, x0 y0 x1 y1, half-open, inside their images and not empty.
        box_images: (N,) int32, the index of each box's image.
        size: Side of a crop, in pixels.
        dtype: float32, float16 or uint8.
        mean: Subtracted from each channel of pixels in [0, 255].
        std: Then divides each channel.

    Returns:
        (N, 3, size, size) of `dtype`.
    """
    device = images.pixels.device
    crops = torch.empty((len(boxes), 3, size, size), dtype=dtype, device=device)
    statistics = torch.tensor([*mean, *std], dtype=torch.float32, device=device)
    threads = min(THREADS, -(-size // 32) * 32)
    kernels.launch(
        "crop_resize",
        f"crop_resize_{_CROP_KERNELS[dtype]}",
        (len(boxes), -(-size // threads), -(-size // ROWS_PER_BAND)),
        threads,
        (images.pixels, images.layouts, boxes, box_images, statistics, crops, size, ROWS_PER_BAND),
    )
    return crops


def threshold_masks(kernels: Kernels, maps: RaggedMaps, theta: str, largest_part: bool = False) -> RaggedMasks:
    """Make masks of the pixels whose saliency exceeds a threshold.

    Args:
        kernels: Launches the kernels.
        maps: Saliency, float32 in [0, 1].
        theta: "otsu" (a threshold per map) or a number.
        largest_part: Whether to keep only the largest connected part (edges and corners connect) of every mask.

    Returns:
        The masks with their areas, boxes and scores.
    """
    grid, count, device = plan_grid(maps), len(maps.host_sizes), maps.values.device
    places = (maps.offsets, maps.sizes)
    if theta == "otsu":
        counts = torch.zeros((count, OTSU_BINS), dtype=torch.int32, device=device)
        kernels.launch("mask_boxes", "histograms", grid, THREADS, (maps.values, *places, counts))
        thresholds = torch.empty(count, dtype=torch.float32, device=device)
        blocks = (-(-count // THREADS), 1, 1)
        kernels.launch("mask_boxes", "otsu_thresholds", blocks, THREADS, (counts, thresholds, count))
    else:
        thresholds = torch.full((count,), float(theta), dtype=torch.float32, device=device)
    masks = torch.empty(maps.values.shape, dtype=torch.uint8, device=device)
    measures = _start_measures(maps)
    arguments = (maps.values, *places, thresholds, masks, *measures)
    kernels.launch("mask_boxes", "threshold_maps", grid, THREADS, arguments)
    found = RaggedMaps(masks, maps.offsets, maps.sizes, maps.host_sizes)
    if largest_part:
        _keep_largest_parts(kernels, found)
        return measure_masks(kernels, maps, found)
    return _score_masks(found, *measures)


def measure_masks(kernels: Kernels, maps: RaggedMaps, masks: RaggedMaps) -> RaggedMasks:
    """Measure areas, boxes and scores of masks, which are not changed.

    Args:
        kernels: Launches the kernels.
        maps: Saliency, float32 in [0, 1].
        masks: uint8, 0 or 1, laid out like `maps`.

    Returns:
        The masks with their measures.
    """
    measures = _start_measures(maps)
    arguments = (maps.values, maps.offsets, maps.sizes, masks.values, *measures)
    kernels.launch("mask_boxes", "measure_masks", plan_grid(maps), THREADS, arguments)
    return _score_masks(masks, *measures)


def assemble_masks(
    kernels: Kernels,
    shapes: RaggedMaps,
    thresholds: torch.Tensor,
    boxes: torch.Tensor,
    clusters: torch.Tensor,
    is_kept: torch.Tensor,
    first_objects: torch.Tensor,
    image_sizes: Sequence[tuple[int, int]],
    dtype: torch.dtype,
) -> RaggedMaps:
    """Make class maps of I images from their objects: cluster + 1 inside each, later objects over earlier, 0 elsewhere.

    Args:
        kernels: Launches the kernels.
        shapes: N masks (uint8) or saliency maps (float32), each at its image's size; an object covers the pixels of its
            box where its shape exceeds its threshold.
        thresholds: (N,) float32.
        boxes: (N, 4) int32, x0 y0 x1 y1, half-open.
        clusters: (N,) int32.
        is_kept: (N,) bool, whether the object is drawn.
        first_objects: (I + 1,) int64; image i has the objects [first_objects[i], first_objects[i + 1]).
        image_sizes: (height, width) of each image.
        dtype: uint8 or uint16.

    Returns:
        The class maps, of `dtype`.
    """
    maps = allocate_maps(image_sizes, dtype, shapes.values.device)
    objects = (shapes.values, shapes.offsets, thresholds, boxes, clusters, is_kept)
    kind = "masks" if shapes.values.dtype == torch.uint8 else "saliency"
    kernels.launch(
        "assemble_masks",
        f"assemble_{kind}_{'uint8' if dtype == torch.uint8 else 'uint16'}",
        plan_grid(maps),
        THREADS,
        (*objects, first_objects, maps.offsets, maps.sizes, maps.values),
    )
    return maps


def _keep_largest_parts(kernels: Kernels, masks: RaggedMaps) -> None:
    """Clear all but the largest connected part of every mask, in place."""
    grid, places = plan_grid(masks), (masks.offsets, masks.sizes)

    def launch(kernel: str, *arguments: torch.Tensor) -> None:
        kernels.launch("mask_boxes", kernel, grid, THREADS, arguments)

    parents = torch.empty(masks.values.shape, dtype=torch.int32, device=masks.values.device)
    counts = torch.zeros_like(parents)
    largest = torch.zeros(len(masks.host_sizes), dtype=torch.int64, device=masks.values.device)
    launch("start_parts", masks.values, *places, parents)
    launch("join_parts", *places, parents)
    launch("count_parts", *places, parents, counts)
    launch("find_largest_parts", *places, counts, largest)
    launch("keep_largest_parts", *places, parents, largest, masks.values)


def _start_measures(maps: RaggedMaps) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Allocate areas, boxes and sums for a kernel to accumulate."""
    count, device = len(maps.host_sizes), maps.values.device
    areas = torch.zeros(count, dtype=torch.int64, device=device)
    most = torch.iinfo(torch.int32).max
    boxes = torch.tensor([most, most, 0, 0], dtype=torch.int32, device=device).repeat(count, 1)
    return areas, boxes, torch.zeros_like(areas)


def _score_masks(masks: RaggedMaps, areas: torch.Tensor, boxes: torch.Tensor, sums: torch.Tensor) -> RaggedMasks:
    scores = (sums.double() * _SUM_UNIT / areas.clamp(min=1)).float()
    return RaggedMasks(masks, areas, boxes, scores)


def plan_grid(maps: RaggedMaps) -> tuple[int, int, int]:
    """Plan the blocks of a launch: a column of blocks for every map, long enough for the largest map."""
    most_pixels = max((height * width for height, width in maps.host_sizes), default=0)
    return len(maps.host_sizes), min(-(-most_pixels // (THREADS * _PIXELS_PER_THREAD)), _MOST_BLOCKS), 1


def _lay_out_maps(values: torch.Tensor, sizes: tuple[tuple[int, int], ...], device: torch.device) -> RaggedMaps:
    starts = np.cumsum([0, *(height * width for height, width in sizes)], dtype=np.int64)[:-1]
    return RaggedMaps(
        values, to_device(starts, device), to_device(np.array(sizes, np.int32).reshape(-1, 2), device), sizes
    )


def _flatten_arrays(
    arrays: Sequence[torch.Tensor | np.ndarray], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Join all arrays, flattened, on `device`; those in host memory are copied together, through pinned memory."""
    tensors = [_as_tensor(one) for one in arrays]
    if tensors and all(one.device == device for one in tensors):
        return torch.cat([one.reshape(-1).to(dtype) for one in tensors])
    count = sum(one.numel() for one in tensors)
    joined = torch.empty(count, dtype=dtype, pin_memory=device.type == "cuda")
    start = 0
    for one in tensors:
        joined[start : start + one.numel()].view(one.shape).copy_(one)
        start += one.numel()
    return joined.to(device, non_blocking=True)


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to a device without waiting for the copy.

    Args:
        array: In host memory.
        device: Where the copy is placed.

    Returns:
        The copy.
    """
    return move_to_device(torch.from_numpy(array), device)


def _as_tensor(array: torch.Tensor | np.ndarray) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.require(array, requirements="W"))
