"""Copies to device memory, the host's memory allocator, and what the processor can do."""

from __future__ import annotations

import ctypes
import sys

import torch


def move_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor to a device. Copies from the host to a GPU go through pinned memory and are not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu" and not torch.compiler.is_compiling():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def measure_free_bytes(device: torch.device) -> int:
    """Measure how many bytes new tensors may take on a CUDA device; on the CPU a fixed 2 GiB, in order not to swap."""
    if device.type != "cuda":
        return 2**31
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def has_bfloat16(device: torch.device | None = None) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32; without one, whether the processor does.

    False where torch is too old to tell.
    """
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(False)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


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
