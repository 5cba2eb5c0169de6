"""How long training goes on, and schedules of its learning rate and of the averaging of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from fastcomus.config import LEAST_PASSES


def compute_batch_starts(count: int, batch_size: int, least: int = 2) -> list[int]:
    """Compute the position at which each batch starts.

    Args:
        count: Number of images.
        batch_size: Images per batch.
        least: A last batch of fewer images joins the one before it.

    Returns:
        Ascending positions in [0, count).
    """
    starts = list(range(0, count, batch_size))
    return starts[:-1] if len(starts) > 1 and count - starts[-1] < least else starts


def choose_epochs(setting: int, images: int, batch_size: int, least_steps: int) -> int:
    """Return the setting or, where it is 0, three passes over the images, and more until there are `least_steps`."""
    steps = max(1, len(compute_batch_starts(images, batch_size)))
    return setting or max(LEAST_PASSES, math.ceil(least_steps / steps))


def compute_cosine_factor(progress: float) -> float:
    """Compute the factor of the learning rate, from 1 down to 0, after a share `progress` in [0, 1] of the training."""
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def make_moving_average(
    kept: float,
) -> Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], torch.Tensor | int], None]:
    """Make the averaging function of an exponential moving average, for `AveragedModel(multi_avg_fn=...)`.

    After n updates the averages keep at most the share (1 + n) / (4 + n) of themselves, so that a short training is not
    dominated by its initial weights.

    Args:
        kept: Share of themselves that the averages keep in a step, in [0, 1].

    Returns:
        A function of the averages, the current values and the number of updates, which changes the averages in place.
    """

    def average(old: Sequence[torch.Tensor], new: Sequence[torch.Tensor], updates: torch.Tensor | int) -> None:
        taken = 1 - min(kept, (1 + int(updates)) / (4 + int(updates)))
        with torch.no_grad():
            torch._foreach_lerp_(list(old), list(new), taken)

    return average
