"""Which errors mean that memory ran out, and what a user is told of an error."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from fastcomus.errors import InputError, explain_error, get_first_line, is_out_of_memory, suggest_names, suggest_path
from fastcomus.images.folder import find_images


class OutOfMemoryError(Exception):
    """As CuPy's and Ray's are called."""


class LibraryError(Exception):
    """A C++ library's own type."""


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        pa.lib.ArrowMemoryError("malloc of size 64 failed"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.OutOfMemoryError("a message of another version"),
        OutOfMemoryError("Allocating 1,024 bytes failed"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"),
        RuntimeError("unable to mmap 9 bytes from file: Cannot allocate memory (12)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        LibraryError("std::bad_alloc: cudaErrorMemoryAllocation out of memory"),
        caused(InputError("this cannot be done."), MemoryError()),
        caused(ValueError("a"), caused(RuntimeError("b"), RuntimeError("CUDA error: out of memory"))),
    ],
    ids=repr,
)
def test_memory_that_ran_out_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    told = explain_error(error)
    assert told is not None and told.exit_code == 3


@pytest.mark.parametrize(
    "error",
    [
        None,
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "out of memory.jpg"),
        InputError("the image out of memory.jpg is not there; give another."),
        KeyError("bad_alloc"),
        ValueError("memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a strided input"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    ],
    ids=repr,
)
def test_other_errors_are_not_taken_for_it(error: Exception | None) -> None:
    assert not is_out_of_memory(error)


def test_the_first_line_of_an_error() -> None:
    assert get_first_line(RuntimeError("\n first \nsecond")) == "first "
    assert get_first_line(RuntimeError("first\nsecond"), limit=3) == "fir"
    assert get_first_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("no such folder."), "no such folder."),
        (PermissionError(13, "Permission denied", "a.jpg"), "a.jpg cannot be used (Permission denied); see to it and "),
        (RuntimeError("operator torchvision::nms does not exist"), "torch and torchvision are of different builds"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(error: Exception, text: str) -> None:
    told = explain_error(error)
    assert told is not None and told.text.startswith(text) and told.exit_code == 2


def test_near_names_are_suggested_once() -> None:
    assert suggest_names("vit_smal", ["vit_small", "vit_small", "resnet"]) == "; did you mean vit_small?"


def test_near_paths_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/bus.jpg").touch()
    monkeypatch.chdir(tmp_path)
    for given, meant in (
        ("./phtos", "photos"),
        ("phtos/bus.jpg", "photos/bus.jpg"),
        ("photos/bsu.jpg", "photos/bus.jpg"),
    ):
        assert suggest_path(Path(given)) == f"; did you mean {Path(meant)}?"
    assert suggest_path(tmp_path / "phtos") == f"; did you mean {tmp_path / 'photos'}?"
    for given in ("elsewhere", "phtos/car.jpg", "none/none/none", "/none/photos"):
        assert suggest_path(Path(given)) == ""
    with pytest.raises(InputError, match=r"^phtos does not exist; did you mean photos\?$"):
        find_images(Path("./phtos"))


def test_a_fault_of_the_program_is_not_explained() -> None:
    assert explain_error(ZeroDivisionError()) is None
