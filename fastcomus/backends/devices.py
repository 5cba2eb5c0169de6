"""The devices that torch sees on this machine."""

from __future__ import annotations

import torch

from fastcomus.errors import InputError, get_first_line


def resolve_device(device: str) -> torch.device:
    """Find the device that `select` would choose, "cuda" without an index; InputError where it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}.")
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise InputError(
            f"--device {device} was asked for and this machine has {torch.cuda.device_count()} CUDA devices"
            f"{_explain_absence()}; use --device cpu or --device auto."
        )
    return chosen


def _explain_absence() -> str:
    """Say in brackets why torch sees no CUDA device: a torch for CPUs, no driver, or one that is too old."""
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f" ({get_first_line(error).split('. ')[0].rstrip('.')})"
    return ""


def check_capability(device: torch.device) -> None:
    """Raise InputError where the installed torch has no code for a CUDA device, else its first kernel fails."""
    built_for = [
        int(one.removeprefix("sm_").rstrip("af")) for one in torch.cuda.get_arch_list() if one.startswith("sm_")
    ]
    major, minor = torch.cuda.get_device_capability(device)
    if built_for and 10 * major + minor < min(built_for):
        raise InputError(
            f"{torch.cuda.get_device_name(device)} (sm_{major}{minor}) is too old for this torch, which begins at "
            f"sm_{min(built_for)}; use --device cpu, or install a torch built for it."
        )
