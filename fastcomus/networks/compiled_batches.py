"""Functions compiled for batches of one size, and batches filled up to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class FixedBatches:
    """A function of a batch of images, compiled by torch.compile for batches of `size`.

    It returns a tensor or several; on a CUDA device it becomes a CUDA graph, launched as one. A batch of that size goes
    through what was compiled, at the first of them for minutes; any other, as they come where
    memory runs short, through `function` itself. On a CUDA device always to be called from the same thread.
    """

    def __init__(self, function: Callable[[torch.Tensor], Any], size: int, device: torch.device) -> None:
        self.function, self.size = function, size
        self.compiled = torch.compile(function, dynamic=False, mode=_choose_mode(device))

    def __call__(self, batch: torch.Tensor) -> Any:
        """Apply the function to a batch (N, ...)."""
        if len(batch) != self.size:
            return self.function(batch)
        made = self.compiled(batch)  # which the next run of a CUDA graph overwrites
        return made.clone() if isinstance(made, torch.Tensor) else tuple(one.clone() for one in made)


def fill_up(batch: torch.Tensor, size: int) -> torch.Tensor:
    """`batch` (N, ...), its last item repeated until there are `size`."""
    missing = size - len(batch)
    return torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]) if missing > 0 else batch


def _choose_mode(device: torch.device) -> str:
    return "reduce-overhead" if device.type == "cuda" else "default"
