"""Ragged batches on a device: images or maps of any sizes, one after the other in one flat tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastcomus.backends.machine import move_to_device


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
    """Pack images, (H, W, 3) uint8 each, interleaved or planar in memory, into one buffer on a device."""
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
    """Pack maps, (H, W) each, into one buffer of `dtype` on a device."""
    sizes = tuple((one.shape[0], one.shape[1]) for one in maps)
    return _lay_out_maps(_flatten_arrays(maps, dtype, device), sizes, device)


def allocate_maps(sizes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device) -> RaggedMaps:
    """Allocate maps of the given (height, width) for a kernel to fill; their values are undefined."""
    pixels = sum(height * width for height, width in sizes)
    return _lay_out_maps(torch.empty(pixels, dtype=dtype, device=device), tuple(sizes), device)


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy an array to a device without waiting for the copy."""
    return move_to_device(torch.from_numpy(array), device)


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


def _as_tensor(array: torch.Tensor | np.ndarray) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.require(array, requirements="W"))
