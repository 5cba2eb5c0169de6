"""Choice of the backend for a device."""

from __future__ import annotations

import logging

import torch

from fastcomus.backends.interface import Backend
from fastcomus.errors import InputError

log = logging.getLogger("fastcomus")


def select(device: str) -> Backend:
    """Choose the backend for a device: "cpu", "cuda", "cuda:N", or "auto" (a CUDA device where there is one).

    Raises:
        InputError: The device is not there; only "auto" ever takes another.
    """
    from fastcomus.backends.cpu import CpuBackend
    from fastcomus.backends.machine import keep_freed_memory

    chosen = resolve_device(device)
    keep_freed_memory()
    if chosen.type == "cuda":
        return _select_cuda(torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index))
    return CpuBackend(device=chosen)


def resolve_device(device: str) -> torch.device:
    """Find the device that `select` would choose, "cuda" without an index; InputError where it is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}.")
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise InputError(
            f"--device {device} was asked for and this machine has {torch.cuda.device_count()} CUDA devices; "
            "use --device cpu or --device auto."
        )
    return chosen


def _select_cuda(device: torch.device) -> Backend:
    """Do everything on the device where the extra `gpu` is installed, else only what torch does."""
    from fastcomus.backends.cpu import CpuBackend
    from fastcomus.backends.gpu import GpuBackend, find_missing_libraries

    if missing := find_missing_libraries():
        log.info("Networks run on %s, the rest on the CPU: the extra gpu lacks %s.", device, ", ".join(missing))
        return CpuBackend(device)
    return GpuBackend(device)
