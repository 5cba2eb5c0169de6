"""Functions compiled for batches of one size, and padding of batches to that size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fastcomus.backends.machine import move_to_device


class FixedBatches:
    """A function of a batch of images, compiled by torch.compile for batches of `size`.

    The function returns one tensor or several; on a CUDA device it becomes a CUDA graph, launched as one. The first
    batch of that size takes minutes to compile. Batches of any other size, which occur where memory runs short, go
    through `function` uncompiled. On a CUDA device all calls must come from the same thread.
    """

    def __init__(self, function: Callable[[torch.Tensor], Any], size: int, device: torch.device) -> None:
        self.function, self.size, self.device = function, size, device
        self.compiled = torch.compile(function, dynamic=False, mode=_choose_mode(device))

    def __call__(self, batch: torch.Tensor) -> Any:
        """Apply the function to a batch (N, ...), which is moved first: what is compiled cannot copy from the host."""
        batch = move_to_device(batch, self.device)
        if len(batch) != self.size:
            return self.function(batch)
        made = self.compiled(batch)  # which the next run of a CUDA graph overwrites
        return made.clone() if isinstance(made, torch.Tensor) else tuple(one.clone() for one in made)


def fill_up(batch: torch.Tensor, size: int) -> torch.Tensor:
    """Repeat the last item of a batch until there are `size` items.

    Args:
        batch: (N, ...), N > 0.
        size: Number of items wanted.

    Returns:
        (max(N, size), ...).
    """
    missing = size - len(batch)
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing > 0 else batch


def _choose_mode(device: torch.device) -> str:
    return "reduce-overhead" if device.type == "cuda" else "default"
