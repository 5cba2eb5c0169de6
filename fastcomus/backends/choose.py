"""Choice of the backend for a device."""

from __future__ import annotations

import os

from fastcomus.backends.interface import Backend
from fastcomus.backends.machine import has_gpu_driver, keep_freed_memory


def select(device: str, is_deterministic: bool = False) -> Backend:
    """Choose the backend for a device: "cpu", "cuda", "cuda:N", or "auto" (a CUDA device where there is one).

    Without a number, all CUDA devices share the comparison of all pairs of rows. The CPU's loads no torch.

    Args:
        device: Its name.
        is_deterministic: Whether a GPU is to give the same bytes every time; the CPU always does.

    Raises:
        InputError: The device is not there, or too old for this torch; only "auto" ever takes another.
    """
    keep_freed_memory()
    if device == "cpu" or (device == "auto" and not has_gpu_driver()):
        return _make_cpu_backend()
    import torch

    from fastcomus.backends.devices import check_capability, resolve_device

    chosen = resolve_device(device)
    if chosen.type == "cpu":
        return _make_cpu_backend()
    from fastcomus.backends.gpu import GpuBackend

    check_capability(chosen)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # one order of adding; read at the first product
    if chosen.index is not None:
        return GpuBackend(chosen, is_deterministic=is_deterministic)
    own = torch.cuda.current_device()
    others = tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()) if index != own)
    return GpuBackend(torch.device("cuda", own), is_deterministic=is_deterministic, sharing=others)


def _make_cpu_backend() -> Backend:
    from fastcomus.backends.cpu import CpuBackend

    return CpuBackend()
