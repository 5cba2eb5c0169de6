"""Kernels built by g++ behind `cuda_on_cpu.h` and launched through ctypes, with the interface of CuPy's."""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fastcomus.backends.kernel_loader import Argument, bind_arguments, parse_signatures, read_kernel_source

HERE = Path(__file__).parent
BUILT = HERE.parent.parent / ".pytest_cache/kernels"
# Products and sums rounded one by one, as the sources' comments expect; a GPU may fuse them where they do not say.
FLAGS = ["-O2", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wno-unused", f"-I{HERE}/include"]

_one_launch = threading.Lock()  # a library has one threadIdx, and ctypes lets other threads run meanwhile


class CpuKernels:
    """`Kernels` on the CPU. `backwards`: blocks and threads run in the opposite order."""

    def __init__(self, *options: str, backwards: bool = False) -> None:
        self.options, self.backwards = options, backwards
        self.launched: list[str] = []
        self._libraries: dict[str, ctypes.CDLL] = {}

    def launch(
        self, file: str, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Sequence[Argument]
    ) -> None:
        bound = bind_arguments(file, kernel, arguments)
        self.launched.append(kernel)
        assert 0 < threads <= 1024 and grid[0] < 2**31 and max(grid[1:]) < 2**16, (grid, threads)
        if 0 in grid:
            return
        held = [np.array(one.data_ptr(), np.uintp) if isinstance(one, torch.Tensor) else np.array(one) for one in bound]
        pointers = (ctypes.c_void_p * len(held))(*(one.ctypes.data for one in held))
        shape = (ctypes.c_uint * 4)(*grid, threads)
        with_fibers = kernel in functions_with_barriers(read_kernel_source(file))
        with _one_launch:
            getattr(self.library(file), f"{kernel}_on_cpu")(shape, pointers, int(with_fibers), int(self.backwards))

    def library(self, file: str) -> ctypes.CDLL:
        if file not in self._libraries:
            built = build(read_kernel_source(file), list(parse_signatures(file)), BUILT / file, *self.options)
            self._libraries[file] = ctypes.CDLL(str(built))
        return self._libraries[file]


def build(source: str, kernels: Sequence[str], stem: Path, *options: str) -> Path:
    """A shared library of `source` and a function NAME_on_cpu for each of its `kernels`, built where it is not there.

    Its name is `stem` and a digest of all that it is made of.
    """
    exports = "".join(f"EXPORT({name})\n" for name in kernels)
    text = f'#include "{HERE}/cuda_on_cpu.h"\n#line 1 "{stem.name}.cu"\n{source}\n{exports}'
    headers = sorted(HERE.rglob("*.h"))
    content = "\0".join([*FLAGS, *options, text, *(header.read_text(encoding="utf-8") for header in headers)])
    library = stem.with_name(f"{stem.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.so")
    if not library.exists():
        stem.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=stem.parent) as scratch:
            (Path(scratch) / "source.cpp").write_text(text, encoding="utf-8")
            made = Path(scratch) / library.name
            subprocess.run(["g++", *FLAGS, *options, f"{scratch}/source.cpp", "-o", made], check=True)
            made.replace(library)
    return library


def functions_with_barriers(source: str) -> set[str]:
    """Names of the functions that call __syncthreads, by themselves or through others."""
    bodies = {}
    source = re.sub(r"//.*", "", source)
    for match in re.finditer(r"\bvoid\s+(\w+)\s*\([^)]*\)\s*(?:const\s*)?\{", source):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(source[end], 0)
            end += 1
        bodies[match[1]] = source[match.end() : end]
    found = {"__syncthreads"}
    while True:
        more = {name for name, body in bodies.items() if any(re.search(rf"\b{one}\s*\(", body) for one in found)}
        if more <= found:
            return found - {"__syncthreads"}
        found |= more
