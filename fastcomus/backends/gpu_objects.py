"""The objects of a batch of images on the device: masks, boxes, crops and run lengths by the custom kernels.

Only what table rows need is copied to the host: areas, boxes, scores, and the places where masks change. The host waits
twice, for the numbers and for these places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastcomus.backends import gpu_images, ragged_batches
from fastcomus.backends.gpu_images import THREADS
from fastcomus.backends.interface import FoundObjects, Image
from fastcomus.backends.kernel_loader import Kernels
from fastcomus.backends.ragged_batches import RaggedMaps, RaggedMasks
from fastcomus.backends.run_lengths import encode_run_lengths

_COLUMN_THREADS = 64  # few, so that a handful of masks keeps many multiprocessors busy


def find_objects(
    kernels: Kernels,
    device: torch.device,
    images: Sequence[Image],
    maps: Sequence[np.ndarray | torch.Tensor],
    theta: str,
    min_area: int,
    crop_size: int,
) -> list[FoundObjects]:
    """See `Backend.find_objects`; crops stay on the device."""
    owners = np.repeat(np.arange(len(images)), [len(own) for own in maps])
    found = _make_masks(kernels, device, maps, [_get_image_size(images[owner]) for owner in owners], theta)
    changes = count_changes(kernels, found.masks)
    packed = torch.cat([found.areas[:, None], found.boxes, changes.mask_ends[:, None]], dim=1)
    numbers, scores = packed.cpu().numpy(), found.scores.cpu().numpy()
    areas, boxes, ends = numbers[:, 0], numbers[:, 1:5].astype(np.int32), numbers[:, 5]
    is_kept = areas >= min_area
    kept = np.flatnonzero(is_kept)
    rows = ragged_batches.to_device(kept, device)
    crops = gpu_images.crop_resize(
        kernels,
        ragged_batches.pack_images(images, device),
        found.boxes[rows],
        ragged_batches.to_device(owners[kept].astype(np.int32), device),
        crop_size,
        torch.uint8,
    )
    places = np.split(write_changes(kernels, found.masks, changes, int(ends[-1]) if len(ends) else 0), ends[:-1])
    objects = []
    for image, pixels in enumerate(images):
        own = kept[owners[kept] == image]
        first = int(np.searchsorted(owners[kept], image))
        was_any = bool(areas[owners == image].any())
        run_lengths = [encode_run_lengths(places[row], _get_image_size(pixels)) for row in own]
        own_crops = crops[first : first + len(own)]
        objects.append(
            FoundObjects(boxes[own], areas[own], scores[own], run_lengths, own_crops, not len(own) and was_any)
        )
    return objects


def enlarge_maps(kernels: Kernels, coarse: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> RaggedMaps:
    """Resize maps (M, h, w) float32 bilinearly, each to its own (height, width) of `sizes`, and clip them to [0, 1]."""
    maps = ragged_batches.allocate_maps(sizes, torch.float32, coarse.device)
    arguments = (coarse.contiguous(), coarse.shape[1], coarse.shape[2], maps.offsets, maps.sizes, maps.values)
    kernels.launch("enlarge_maps", "enlarge_maps", gpu_images.plan_grid(maps), THREADS, arguments)
    return maps


@dataclass(frozen=True)
class Changes:
    """The number of changes in each column of M masks, as in run_lengths.cu.

    `columns`: (M,) int64, index of the first column of each mask among all columns. `counts`: number of changes in
    every column. `ends`: cumulative sums of `counts`. `mask_ends`: (M,) int64, the entry of `ends` for each mask's last
    column.
    """

    columns: torch.Tensor
    counts: torch.Tensor
    ends: torch.Tensor
    mask_ends: torch.Tensor


def count_changes(kernels: Kernels, masks: RaggedMaps) -> Changes:
    """Count the changes in every column of masks (uint8, 0 or 1)."""
    device = masks.values.device
    last_columns = np.cumsum([width for _, width in masks.host_sizes], dtype=np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), last_columns])
    columns = ragged_batches.to_device(starts[:-1], device)
    counts = torch.empty(int(starts[-1]), dtype=torch.int32, device=device)
    arguments = (masks.values, masks.offsets, masks.sizes, columns, counts)
    kernels.launch("run_lengths", "count_changes", _plan_column_grid(masks), _COLUMN_THREADS, arguments)
    ends = counts.cumsum(0, dtype=torch.int64)
    return Changes(columns, counts, ends, ends[ragged_batches.to_device(last_columns - 1, device)])


def write_changes(kernels: Kernels, masks: RaggedMaps, changes: Changes, total: int) -> np.ndarray:
    """List the places x H + y of all `total` changes, (total,) int32 on the host, mask by mask."""
    places = torch.empty(total, dtype=torch.int32, device=masks.values.device)
    arguments = (masks.values, masks.offsets, masks.sizes, changes.columns, changes.counts, changes.ends, places)
    kernels.launch("run_lengths", "write_changes", _plan_column_grid(masks), _COLUMN_THREADS, arguments)
    return places.cpu().numpy()


def _make_masks(
    kernels: Kernels,
    device: torch.device,
    maps: Sequence[np.ndarray | torch.Tensor],
    sizes: Sequence[tuple[int, int]],
    theta: str,
) -> RaggedMasks:
    """Make the masks of all images' maps, each at its own one of `sizes`."""
    each = [one for own in maps for one in own]
    are_masks = bool(each) and each[0].dtype in (bool, torch.bool)
    if all(_get_image_size(one) == size for one, size in zip(each, sizes, strict=True)):
        if are_masks:
            masks = ragged_batches.pack_maps(each, torch.uint8, device)
            inside = RaggedMaps(masks.values.float(), masks.offsets, masks.sizes, masks.host_sizes)
            return gpu_images.measure_masks(kernels, inside, masks)
        return gpu_images.threshold_masks(kernels, ragged_batches.pack_maps(each, torch.float32, device), theta)
    coarse = torch.stack([torch.as_tensor(one).to(device) for one in each]).float()
    found = gpu_images.threshold_masks(kernels, enlarge_maps(kernels, coarse, sizes), "0.5" if are_masks else theta)
    if are_masks:  # a mask is sure of itself
        return RaggedMasks(found.masks, found.areas, found.boxes, torch.ones_like(found.scores))
    return found


def _get_image_size(image: np.ndarray | torch.Tensor) -> tuple[int, int]:
    return int(image.shape[0]), int(image.shape[1])


def _plan_column_grid(masks: RaggedMaps) -> tuple[int, int, int]:
    widest = max((width for _, width in masks.host_sizes), default=0)
    return len(masks.host_sizes), -(-widest // _COLUMN_THREADS), 1
