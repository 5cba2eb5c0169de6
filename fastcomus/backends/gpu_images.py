"""Crops, masks and class maps of ragged batches by the custom kernels, in one launch for all images.

Functions with a parameter `kernels` launch kernels through it and leave their results on the device, on torch's current
stream, without waiting for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fastcomus.backends.cpu import OTSU_BINS
from fastcomus.backends.kernel_loader import Kernels
from fastcomus.backends.ragged_batches import RaggedImages, RaggedMaps, RaggedMasks, allocate_maps

THREADS = 256  # in a block
ROWS_PER_BAND = 16  # of a crop in one thread: a box is read 1 + 1/16 times
_PIXELS_PER_THREAD = 8  # of masks and class maps
_MOST_BLOCKS = 4_096  # that share an image
_SUM_UNIT = 2.0**-32  # of `sums` in mask_boxes.cu
_CROP_KERNELS = {torch.float32: "float32", torch.float16: "float16", torch.uint8: "uint8"}


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
    """Make masks of the pixels whose saliency exceeds a threshold, with areas, boxes and scores.

    Args:
        kernels: Launches the kernels.
        maps: Saliency, float32 in [0, 1].
        theta: "otsu" (a threshold per map) or a number.
        largest_part: Whether to keep only the largest connected part (edges and corners connect) of every mask.
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
    """Measure areas, boxes and scores of masks (uint8, 0 or 1, laid out like `maps` of saliency)."""
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
    """Make class maps of I images from objects: cluster + 1 inside each, later ones over earlier, 0 elsewhere.

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
