"""The custom kernels of `kernels/`: their sources, their signatures, and their launches on torch's tensors.

A `.cu` file is looked for inside the package first (where a wheel puts it), then beside the package (in a clone). CuPy
is imported only here, when the first kernel is launched.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from fastcomus.errors import InputError

_PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (_PACKAGE / "kernels", _PACKAGE.parent / "kernels")
OPTIONS = ("--std=c++17",)  # of the compiler
_compiling = threading.Lock()

Argument = torch.Tensor | int | float

# What a pointer of each C++ type may point at. torch counts in signed 64-bit integers.
_TENSORS = {
    "unsigned char": (torch.uint8, torch.bool),
    "unsigned short": (torch.uint16,),
    "int": (torch.int32,),
    "long long": (torch.int64,),
    "unsigned long long": (torch.int64, torch.uint64),
    "float": (torch.float32,),
    "__half": (torch.float16,),
}
_SCALARS: dict[str, Any] = {"int": np.int32, "long long": np.int64, "float": np.float32}
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(\w+)\s*\(([^)]*)\)')
_PARAMETER = re.compile(r"(?:const\s+)?([\w ]+?)\s*(\*?)\s*(\w+)")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel: its name, its C++ type without const and *, and whether it is a pointer."""

    name: str
    kind: str
    is_pointer: bool


class Kernels(Protocol):
    """Launches kernels."""

    def launch(
        self, file: str, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Sequence[Argument]
    ) -> None:
        """Launch a kernel on torch's current stream, without waiting for it.

        Args:
            file: Name of its source, without `.cu`.
            kernel: Name of the kernel.
            grid: Blocks in x, y and z; a grid without blocks does nothing.
            threads: Threads per block.
            arguments: In the order of the kernel's parameters: contiguous tensors on one device, and numbers.

        Raises:
            TypeError: The arguments do not fit the kernel's parameters.
        """


def read_kernel_source(file: str) -> str:
    """Read the text of `file`.cu; InputError where the installation lacks it."""
    for folder in FOLDERS:
        if (folder / f"{file}.cu").is_file():
            return (folder / f"{file}.cu").read_text(encoding="utf-8")
    looked = " and ".join(str(folder) for folder in FOLDERS)
    raise InputError(f"the kernel {file}.cu is missing; looked in {looked}. Install fastcomus again, as a wheel does.")


@cache
def parse_signatures(file: str) -> dict[str, tuple[Parameter, ...]]:
    """Parse the parameters of every kernel in `file`.cu; gives them by the kernel's name."""
    found = {}
    for name, text in _KERNEL.findall(read_kernel_source(file)):
        matches = [_PARAMETER.fullmatch(" ".join(one.split())) for one in text.split(",")]
        found[name] = tuple(Parameter(m[3], m[1], bool(m[2])) for m in matches if m)
        assert len(found[name]) == len(matches), (file, name, text)
    return found


def bind_arguments(file: str, kernel: str, arguments: Sequence[Argument]) -> list[torch.Tensor | np.generic]:
    """Check arguments against a kernel's parameters, in their order, and convert numbers to the parameters' types.

    Raises:
        TypeError: The arguments do not fit the parameters.
    """
    parameters = parse_signatures(file)[kernel]
    if len(parameters) != len(arguments):
        raise TypeError(f"{kernel} takes {len(parameters)} arguments, got {len(arguments)}")
    bound: list[torch.Tensor | np.generic] = []
    for parameter, argument in zip(parameters, arguments, strict=True):
        what = f"{kernel}: {parameter.name}"
        if not parameter.is_pointer:
            if isinstance(argument, torch.Tensor):
                raise TypeError(f"{what} is a number, got a tensor")
            bound.append(_SCALARS[parameter.kind](argument))
        elif not isinstance(argument, torch.Tensor) or argument.dtype not in _TENSORS[parameter.kind]:
            got = argument.dtype if isinstance(argument, torch.Tensor) else type(argument).__name__
            raise TypeError(f"{what} points at {parameter.kind}, got {got}")
        elif not argument.is_contiguous():
            raise TypeError(f"{what} is not contiguous")
        else:
            bound.append(argument)
    return bound


class CupyKernels:
    """Kernels compiled by CuPy for a CUDA device, on torch's current stream of that device."""

    def launch(
        self, file: str, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Sequence[Argument]
    ) -> None:
        """See `Kernels.launch`."""
        bound = bind_arguments(file, kernel, arguments)
        if 0 in grid:
            return
        import cupy

        device = next(one.device for one in bound if isinstance(one, torch.Tensor))
        assert device.index is not None
        # CuPy passes an int on as 64 bits, as long as a pointer. The tensors live until the call returns, and torch
        # gives their memory only to work that comes later on this stream.
        values = tuple(one.data_ptr() if isinstance(one, torch.Tensor) else one for one in bound)
        with cupy.cuda.Device(device.index):
            with _compiling:  # worker threads crop at the same time
                compiled = _compile_kernel(file, kernel, device.index)
            stream = torch.cuda.current_stream(device)
            if hasattr(stream, "__cuda_stream__"):  # from torch 2.10 on
                taken = cupy.cuda.Stream.from_external(stream)
            else:
                taken = cupy.cuda.ExternalStream(stream.cuda_stream, device.index)
            with taken:
                compiled(grid, (threads, 1, 1), values)


@cache
def _compile_kernel(file: str, kernel: str, device_index: int) -> Any:
    """Compile the kernel for a device; `device_index` must be CuPy's current one."""
    return _load_module(file, device_index).get_function(kernel)


@cache
def _load_module(file: str, device_index: int) -> Any:
    import cupy

    return cupy.RawModule(code=read_kernel_source(file), options=OPTIONS)
