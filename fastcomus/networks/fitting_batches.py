"""Batches that fit into memory: sized by the free memory, halved where that is not enough, with the size remembered."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from fastcomus.backends.machine import measure_free_bytes
from fastcomus.errors import InputError, is_out_of_memory

log = logging.getLogger("fastcomus")
Result = TypeVar("Result")
_SHARE_OF_FREE = 0.8  # what a batch may take of free memory; the rest is for fragments and other programs


def choose_batch_limit(setting: int, device: torch.device, on_gpu: int, on_cpu: int) -> int:
    """Choose the largest batch size, before memory is considered.

    Args:
        setting: The user's setting; 0 for the default of the device.
        device: Where batches are processed.
        on_gpu: Default for a CUDA device.
        on_cpu: Default for the CPU.

    Returns:
        Items per batch.
    """
    return setting or (on_gpu if device.type == "cuda" else on_cpu)


class DeviceMemory(Protocol):
    """Measures the memory of a device."""

    def measure_free_bytes(self) -> int:
        """Measure how many bytes new tensors may take."""

    def measure_peak_bytes(self, work: Callable[[], object]) -> int:
        """Call `work` and measure the most bytes it held at a time, beyond those held before."""

    def release(self) -> None:
        """Release memory that the allocator keeps for later tensors."""


class CudaMemory:
    """The memory of a CUDA device as torch's allocator sees it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def measure_free_bytes(self) -> int:
        """See `DeviceMemory.measure_free_bytes`."""
        return measure_free_bytes(self.device)

    def measure_peak_bytes(self, work: Callable[[], object]) -> int:
        """See `DeviceMemory.measure_peak_bytes`."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        work()
        return torch.cuda.max_memory_allocated(self.device) - before

    def release(self) -> None:
        """See `DeviceMemory.release`."""
        torch.cuda.empty_cache()


class FittingBatches:
    """Runs a function over batches that may be too large for memory, in as few parts as fit.

    On a CUDA device a single item is run first for every new size of item; the memory it takes tells how many fit into
    what is free. Where memory still runs out, the part is halved and tried again, and items of that size or larger
    never come in larger parts again. On the CPU parts are only halved.
    """

    def __init__(self, device: torch.device, memory: DeviceMemory | None = None) -> None:
        self.device = device
        self.memory = memory or (CudaMemory(device) if device.type == "cuda" else None)
        self._most: dict[int, int] = {}  # items at once, by numbers in an item

    def run(self, function: Callable[[torch.Tensor], Result], batch: torch.Tensor) -> list[Result]:
        """Apply a function to a batch, in one part where all of it fits, else in consecutive parts.

        Args:
            function: Applied to each part.
            batch: (N, ...).

        Returns:
            The result of each part, in order.

        Raises:
            InputError: A single item is too large for memory; it says which size would fit.
        """
        item = batch[0].numel() if len(batch) else 0
        if self.memory and len(batch) > 1 and item not in self._most:
            self._measure(function, batch[:1], item)
        results: list[Result] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + self.get_limit(item)]
            try:
                results.append(function(part))
                start += len(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler: the error holds the tensors of every frame that it went through.
            if self.memory:
                self.memory.release()
            if len(part) == 1:
                raise self._build_error(function, part)
            self._lower(item, len(part) // 2, tuple(batch.shape[1:]))
        return results

    def get_limit(self, item: int) -> int:
        """Get how many items of `item` numbers each may be run at once, as far as is known."""
        return min((most for size, most in self._most.items() if size <= item), default=2**31)

    def _measure(self, function: Callable[[torch.Tensor], object], one: torch.Tensor, item: int) -> None:
        assert self.memory
        try:
            taken = self.memory.measure_peak_bytes(lambda: function(one))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            taken = 0  # the batch itself will tell, with fewer things held
        if taken:
            self._most[item] = max(1, int(self.memory.measure_free_bytes() * _SHARE_OF_FREE) // taken)

    def _build_error(self, function: Callable[[torch.Tensor], object], one: torch.Tensor) -> InputError:
        """Say that one item does not fit, and which size would."""
        free = f" ({self.memory.measure_free_bytes() / 2**30:.1f} GiB are free)" if self.memory else ""
        side = self._find_fitting_side(function, one)
        share = f" to about {100 * side // min(one.shape[-2:])} %, which would fit" if side else ""
        return InputError(
            f"{self.device} has too little memory for a single item of shape {tuple(one.shape[1:])}{free}; "
            f"lower crop_size, saliency_size or predict_size{share}, or use another device."
        )

    def _find_fitting_side(self, function: Callable[[torch.Tensor], object], one: torch.Tensor) -> int:
        """Find the shorter side in pixels of an item that would fit, by trying smaller ones; 0 where none is found."""
        if one.dim() < 4:
            return 0
        for every in (2, 4, 8, 16):
            small = one[..., ::every, ::every].contiguous()
            try:
                if self.memory is None:
                    function(small)
                    return min(small.shape[-2:])
                taken = max(1, self.memory.measure_peak_bytes(lambda tried=small: function(tried)))  # type: ignore[misc]
            except Exception:  # a network may want sides of its own
                taken = 0
            if not taken:
                if self.memory:
                    self.memory.release()
                continue
            assert self.memory
            grow = math.sqrt(self.memory.measure_free_bytes() * _SHARE_OF_FREE / taken)  # memory goes by the area
            return int(min(small.shape[-2:]) * min(grow, every * _SHARE_OF_FREE))
        return 0

    def _lower(self, item: int, most: int, shape: tuple[int, ...]) -> None:
        log.warning("Out of memory on %s: from here on %d at once of shape %s.", self.device, most, shape)
        self._most[item] = most
