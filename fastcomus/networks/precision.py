"""The precision in which a network computes on a device."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from fastcomus.backends.machine import has_bfloat16


def choose_precision(wanted: str, device: torch.device) -> str:
    """`wanted`, or for "auto" bf16 where the device has instructions for it, else float32."""
    if wanted != "auto":
        return wanted
    has_instructions = has_bfloat16() if device.type == "cpu" else torch.cuda.is_bf16_supported(False)
    return "bf16" if has_instructions else "float32"


def use_precision(device: torch.device, precision: str) -> AbstractContextManager:
    """Mixed precision in bfloat16 for "bf16"; nothing for "float32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
