"""Where the per-image stages compute: in this process, in one per device (`several_devices.py`), on Ray
(`distributed.py`).

A stage describes its work once, as a `Work` that can be sent to other processes, and cuts it into pieces: runs of image
names whose results do not depend on the other pieces. Whatever the engine, the process that was started writes every
file, so the folder has one writer and the bytes are the same.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from fastcomus.backends import Backend
from fastcomus.config import nearest
from fastcomus.errors import InputError, is_out_of_memory
from fastcomus.image_roots import ImageRoot

ENGINES = ("local", "ray")

Piece = TypeVar("Piece")
Piece_in = TypeVar("Piece_in", contravariant=True)
Stored = TypeVar("Stored")


class OfImages(Protocol):
    """What a piece of work gives, whole or in parts. `images`: how many are done with it."""

    @property
    def images(self) -> int: ...


Result = TypeVar("Result", bound=OfImages)
Result_out = TypeVar("Result_out", bound=OfImages, covariant=True)


class Loaded(Protocol[Piece_in, Result_out]):
    """Work with its networks in memory: results of `pieces`, each through `then`, which may be called in threads.

    `on_images` is told of every image done.
    """

    def __call__(
        self, pieces: Sequence[Piece_in], then: Callable[[Result_out], Stored], on_images: Callable[[int], None]
    ) -> Iterator[Stored]: ...


class Work(Protocol[Piece_in, Result_out]):
    """What is to be done with pieces of images under `root`, small enough to be sent to another process."""

    @property
    def root(self) -> ImageRoot: ...

    def load(self, backend: Backend, workers: int) -> Loaded[Piece_in, Result_out]:
        """Load the networks, once for all pieces. `workers`: threads that read images. Raises InputError."""


class Engine(Protocol):
    def results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> AbstractContextManager[Iterator[Stored]]:
        """`then(result)` of all results of `pieces` (at least one), in this process, in any order.

        When the block is entered, networks are loaded; what was started ends with it. Raises InputError.
        """


class ThisProcess:
    """Everything here, on one device."""

    def __init__(self, backend: Backend, workers: int) -> None:
        self.backend = backend
        self.workers = workers

    @contextmanager
    def results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> Iterator[Iterator[Stored]]:
        yield work.load(self.backend, self.workers)(pieces, then, on_images)


def choose_engine(
    name: str, address: str, device: str, devices: Sequence[str], backend: Backend, workers: int | None, cores: int
) -> Engine:
    """The engine `name`, "local" or "ray", before anything is loaded or started.

    `address`: of a Ray cluster. `device`: as it was asked for; `devices`: one or several of this machine. `workers`:
    threads that read images in every process, None for a share of the `cores`. Raises InputError.
    """
    if name not in ENGINES:
        raise InputError(f"--engine must be {' or '.join(ENGINES)}; got {name!r}{nearest(name, ENGINES)}")
    if name == "ray":
        from fastcomus.distributed import ray_engine

        return ray_engine(address, device, workers)
    if address:
        raise InputError(f"--address {address} is that of a Ray cluster; add --engine ray, or leave it out.")
    if len(devices) > 1:
        from fastcomus.several_devices import SeveralDevices

        return SeveralDevices(devices, workers or max(1, cores // len(devices)))
    return ThisProcess(backend, workers or cores)


def done_here(work_loaded: Loaded[Piece, Result], piece: Piece) -> Iterator[Result]:
    """The results of one piece as they are, for a process that sends them on."""
    return work_loaded([piece], _unchanged, _nobody)


def portable(error: Exception) -> Exception:
    """`error` as it can be raised in another process: what a user is told of stays, of others the traceback."""
    if is_out_of_memory(error):
        return MemoryError(str(error).strip().split("\n")[0])
    if isinstance(error, InputError):
        return InputError(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        return OSError(error.errno, error.strerror, error.filename)
    return RuntimeError("".join(traceback.format_exception(error)))


def _unchanged(result: Any) -> Any:
    return result


def _nobody(count: int) -> None:
    pass
