"""Training to the same bytes every time: on the CPU always, on a GPU where that was asked for, since it costs time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

log = logging.getLogger("fastcomus")
_MARK = "does not have a deterministic implementation"
_told: set[str] = set()


@contextmanager
def use_determinism(device: torch.device, is_wanted: bool) -> Iterator[None]:
    """Let operations on a GPU add in one order inside the block; what cannot is told, once.

    Args:
        device: Where the block computes; nothing changes on the CPU.
        is_wanted: False changes nothing.
    """
    if not is_wanted or device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing here reads what was not written
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.filterwarnings("always", message=f".*{_MARK}")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = benchmark
    for one in heard:
        _tell(one)


def is_determinism_used(tensor: torch.Tensor) -> bool:
    """Tell whether `use_determinism` is at work for a tensor."""
    return tensor.is_cuda and torch.are_deterministic_algorithms_enabled()


def sum_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    """Sum up the cross-entropy of logits (B, C, H, W) at labels (B, H, W), but for those that are `ignored`."""
    if is_determinism_used(logits):  # one number for each pixel first: CUDA's own sum takes any order
        return functional.cross_entropy(logits, labels, ignore_index=ignored, reduction="none").sum()
    return functional.cross_entropy(logits, labels, ignore_index=ignored, reduction="sum")


def enlarge_by_products(maps: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Enlarge maps (B, C, h, w) bilinearly to (B, C, H, W), corner to corner, by matrix products.

    The gradient is a product too, where `interpolate` adds it up in any order on a GPU.
    """
    weights = []
    for source, target in zip(maps.shape[-2:], shape, strict=True):
        one = torch.eye(source, device=maps.device)[None]
        weights.append(functional.interpolate(one, target, mode="linear", align_corners=True)[0].to(maps))
    return weights[0].T @ maps @ weights[1]


def _tell(warning: warnings.WarningMessage) -> None:
    text = str(warning.message)
    if _MARK not in text:
        warnings.warn_explicit(text, warning.category, warning.filename, warning.lineno)
    elif (name := text.partition(" ")[0]) not in _told:
        _told.add(name)
        log.warning("--deterministic: torch has no way to do %s in one order, so bytes may differ by it", name)
