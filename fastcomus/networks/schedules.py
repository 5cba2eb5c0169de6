"""How the learning rate falls and the weights are averaged in the course of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch


def compute_cosine_factor(progress: float) -> float:
    """By which the learning rate is multiplied after that share of training, in [0, 1]: from 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def make_moving_average(
    kept: float,
) -> Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor | int], None]:
    """For AveragedModel: averages that keep the share `kept` of themselves in a step, less in the first ones.

    After n updates they keep at most (1 + n) / (4 + n), so that a short training does not end with the weights it
    began with.
    """

    def average(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor], updates: torch.Tensor | int) -> None:
        taken = 1 - min(kept, (1 + int(updates)) / (4 + int(updates)))
        with torch.no_grad():
            torch._foreach_lerp_(list(old), list(new), taken)

    return average
