"""What a stage gives to an engine: pieces of images, the work on them, and its results."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from fastcomus.backends.interface import Backend
from fastcomus.errors import InputError, get_first_line, is_out_of_memory
from fastcomus.images.roots import ImageRoot

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
    def stream_results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> AbstractContextManager[Iterator[Stored]]:
        """`then(result)` of all results of `pieces` (at least one), in this process, in any order.

        When the block is entered, networks are loaded; what was started ends with it. Raises InputError.
        """


def run_piece(work_loaded: Loaded[Piece, Result], piece: Piece) -> Iterator[Result]:
    """The results of one piece as they are, for a process that sends them on."""
    return work_loaded([piece], _return_unchanged, _tell_nobody)


def make_portable(error: Exception) -> Exception:
    """`error` as it can be raised in another process: what a user is told of stays, of others the traceback."""
    if is_out_of_memory(error):
        return MemoryError(get_first_line(error))
    if isinstance(error, InputError):
        return InputError(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        return OSError(error.errno, error.strerror, error.filename)
    return RuntimeError("".join(traceback.format_exception(error)))


def _return_unchanged(result: Any) -> Any:
    return result


def _tell_nobody(count: int) -> None:
    pass
