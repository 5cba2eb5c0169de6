"""Device memory, and what the processor can do."""

from __future__ import annotations

import ctypes
import sys

import torch


def move_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`. Nobody waits for a copy from the host to a GPU: it goes through pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32; False where torch is too old to tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def keep_freed_memory() -> None:
    """Let glibc's allocator hand freed tensors of up to 256 MiB out again, instead of asking the system anew each time.

    Fresh pages have to be cleared and mapped: in networks of large activations that takes longer than the arithmetic
    (efficientnet-lite0 ran 2.2 times faster without). Up to 1 GiB that was freed stays with the process. Other
    allocators are left alone.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(mmap_threshold, 2**28)
        mallopt(trim_threshold, 2**30)
