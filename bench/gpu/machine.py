"""What the machine has, and its ceilings: the bus, the device's memory, matrix products."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from bench.gpu.place import CEILINGS, Place
from bench.gpu.steps import Part
from fastcomus.backends.gpu import is_installed
from fastcomus.backends.machine import has_bfloat16
from fastcomus.backends.operations import list_operations

LIBRARIES = ("cupy", "cuml", "cuvs", "faiss")


def list_parts(place: Place) -> Iterator[Part]:
    yield "machine", lambda: describe_machine(place.device)
    yield CEILINGS, lambda: measure_ceilings(place)
    yield "operations", lambda: [asdict(one) for one in list_operations(place.device.type == "cuda")]
    if place.device.type == "cuda":
        yield "libraries", lambda: {name: is_installed(name) for name in LIBRARIES}
        yield "kernels", compile_kernels


def describe_machine(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {"cores": os.cpu_count(), "bfloat16": has_bfloat16(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "free_gib": round(torch.cuda.mem_get_info(device)[0] / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "devices": torch.cuda.device_count(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "convolutions in TF32": torch.backends.cudnn.allow_tf32,
        }
    if shutil.which("nvidia-smi"):
        query = [
            "nvidia-smi",
            "--query-gpu=driver_version,clocks.max.sm,power.limit,pcie.link.gen.current",
            "--format=csv",
        ]
        found["nvidia-smi"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.splitlines()
    return found


def measure_ceilings(place: Place) -> dict[str, float]:
    """Bytes and operations a second that nothing here can exceed by much; the best of several turns."""
    return {**measure_copies(place), **measure_products(place)}


def measure_copies(place: Place) -> dict[str, float]:
    size, wide = place.choose((2**28, 2**31), (2**16, 2**16))
    pageable = torch.zeros(size, dtype=torch.uint8)
    host = pageable.pin_memory() if place.device.type == "cuda" else pageable.clone()
    there, big, other = (torch.zeros(one, dtype=torch.uint8, device=place.device) for one in (size, wide, wide))
    return {
        "sent": find_rate(place, size, lambda: there.copy_(host, non_blocking=True)),
        "sent from pageable memory": find_rate(place, size, lambda: there.copy_(pageable)),
        "fetched": find_rate(place, size, lambda: host.copy_(there, non_blocking=True)),
        "moved": find_rate(place, 2 * wide, lambda: other.copy_(big)),
    }


def measure_products(place: Place) -> dict[str, float]:
    side, found, before = place.choose(8192, 64), {}, torch.backends.cuda.matmul.allow_tf32
    try:
        for name, kind in (("bfloat16", torch.bfloat16), ("tf32", torch.float32), ("float32", torch.float32)):
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            one, two = (torch.randn(side, side, device=place.device).to(kind) for _ in range(2))
            found[name] = find_rate(place, 2 * side**3, lambda one=one, two=two: one @ two)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return found


def find_rate(place: Place, amount: float, work: Callable[[], Any]) -> float:
    return round(amount / max(place.measure(work)["least_s"], 1e-9))


def compile_kernels() -> dict[str, Any]:
    """Seconds, registers and spilled bytes of each of kernels/*.cu, where CuPy is installed."""
    if not is_installed("cupy"):
        return {"skipped": "CuPy is not installed"}
    import cupy

    from fastcomus.backends import kernel_loader

    found: dict[str, Any] = {}
    for name in sorted({file.stem for folder in kernel_loader.FOLDERS for file in folder.glob("*.cu")}):
        started = time.perf_counter()
        module = cupy.RawModule(code=kernel_loader.read_kernel_source(name), options=kernel_loader.OPTIONS)
        functions = {kernel: module.get_function(kernel) for kernel in kernel_loader.parse_signatures(name)}
        spent = {kernel: [one.num_regs, one.local_size_bytes] for kernel, one in functions.items()}
        found[name] = {"s": round(time.perf_counter() - started, 3), "registers and local bytes": spent}
    return found
