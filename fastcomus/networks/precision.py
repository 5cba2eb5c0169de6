"""The precision in which a network computes on a device."""

from __future__ import annotations

import torch

from fastcomus.backends.machine import has_bfloat16


def choose_precision(wanted: str, device: torch.device) -> str:
    """Choose the precision of a network.

    Args:
        wanted: "float32", "bf16", or "auto".
        device: Where the network runs.

    Returns:
        `wanted`; for "auto" "bf16" where the device has instructions for it, else "float32".
    """
    if wanted != "auto":
        return wanted
    return "bf16" if has_bfloat16(device) else "float32"


def use_precision(device: torch.device, precision: str) -> torch.autocast:
    """Make a context that autocasts to bfloat16.

    Args:
        device: Where the network runs.
        precision: "bf16", or "float32", for which the context does nothing.

    Returns:
        The context manager.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
