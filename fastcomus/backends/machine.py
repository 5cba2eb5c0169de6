"""What this machine has: a GPU, its memory, cores, instructions; copies to the device, and the host's allocator."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def move_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor to a device. Copies from the host to a GPU go through pinned memory and are not waited for."""
    import torch

    if device.type == "cuda" and tensor.device.type == "cpu" and not torch.compiler.is_compiling():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def measure_free_bytes(device: torch.device) -> int:
    """Measure how many bytes new tensors may take on a CUDA device; on the CPU a fixed 2 GiB, in order not to swap."""
    if device.type != "cuda":
        return 2**31
    import torch

    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def has_bfloat16(device: torch.device | None = None) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32; without one, whether the processor does.

    False where torch is too old to tell.
    """
    import torch

    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_gpu_driver() -> bool:
    """Tell whether a GPU's driver may be here; without one torch sees no GPU, and need not be imported to say so."""
    if sys.platform == "darwin":
        return False
    # NVIDIA's, AMD's, and WSL's; torch may find their libraries where the loader does not.
    files = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if sys.platform != "linux" or any(Path(file).exists() for file in files):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def count_cores() -> int:
    """Count the threads that share a computation: as many as OMP_NUM_THREADS says, else one for each core."""
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):  # else it is not there, or another thread is importing it
        return torch.get_num_threads()  # which may have been set since
    try:
        return max(1, int(os.environ["OMP_NUM_THREADS"].split(",")[0]))
    except (KeyError, ValueError):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let glibc's allocator keep up to 1 GiB of freed tensors of up to 256 MiB; other allocators are not changed.

    Fresh pages have to be cleared and mapped, which in networks of large activations takes longer than the arithmetic
    (efficientnet-lite0 ran 2.2 times faster without).
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(mmap_threshold, 2**28)
        mallopt(trim_threshold, 2**30)
