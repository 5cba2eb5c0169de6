"""What the benchmarks share: which machine, a side in a process of its own, clocks that wait for the device, JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def describe_machine(device: str, *packages: str) -> dict[str, Any]:
    """Hardware, system and versions for a result: of Python, torch, NumPy and those of `packages` that are here."""
    import torch

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"hardware": describe_hardware(device), "threads": torch.get_num_threads(), "versions": found}


def describe_hardware(device: str) -> str:
    """The name of the GPU, or of the processor with its cores."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    return f"{name}, {os.cpu_count()} cores"


def parse_device(device: str) -> str:
    """What `--device` says, with "auto" resolved; InputError where it is not there."""
    from fastcomus.backends.choose import select

    return str(select(device).device)


def run_in_process(script: str, given: dict[str, Any], threads: int, limit_s: float) -> dict[str, Any]:
    """What `script --one-side JSON` prints as its last line, as JSON, with so many threads; {"gave_up": why} where it
    fails or takes longer."""
    environment = {**os.environ, **dict.fromkeys(THREAD_SETTINGS, str(threads))}
    line = [sys.executable, script, "--one-side", json.dumps(given)]
    try:
        reply = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"gave_up": f"over {limit_s:.0f} s"}
    if reply.returncode:
        return {"gave_up": (reply.stderr.strip().splitlines() or ["no reason given"])[-1][:80]}
    return dict(json.loads(reply.stdout.splitlines()[-1]))


def measure_peak_mib() -> float:
    """The most memory this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_numbers(file: Path, numbers: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(numbers, indent=2) + "\n")


class Timed:
    """Sets the CPU-seconds of a block in `times`, and adds its wall-clock seconds to `times["wall"]`; on a CUDA device
    both end when the device has."""

    def __init__(self, times: dict[str, float], stage: str, device: str = "cpu") -> None:
        self.times, self.stage, self.device = times, stage, device

    def __enter__(self) -> None:
        self._wait()
        self.started, self.wall_started = time.process_time(), time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        self._wait()
        self.times[self.stage] = time.process_time() - self.started
        self.times["wall"] = self.times.get("wall", 0) + time.perf_counter() - self.wall_started

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)
