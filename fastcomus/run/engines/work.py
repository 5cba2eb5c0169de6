"""What a command gives to an engine: pieces of images, the work on them, and what is done with its results.

A command describes its work once, as a `Work` that can be sent to other processes, and cuts it into pieces: runs of
image names whose results do not depend on the other pieces. Whatever the engine, the process that was started writes
every file, so the run folder has one writer and the bytes are the same.
"""

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
    """The result of a piece of work, or of a part of it."""

    @property
    def images(self) -> int:
        """How many images are done with it."""


Result = TypeVar("Result", bound=OfImages)
Result_out = TypeVar("Result_out", bound=OfImages, covariant=True)


class Loaded(Protocol[Piece_in, Result_out]):
    """Work with its networks in memory."""

    def __call__(
        self, pieces: Sequence[Piece_in], then: Callable[[Result_out], Stored], on_images: Callable[[int], None]
    ) -> Iterator[Stored]:
        """Yield `then(result)` for the results of `pieces`.

        Args:
            pieces: What is to be done.
            then: Stores a result; it may be called by several threads.
            on_images: Told the number of images that have been done since it was last told.
        """


class Work(Protocol[Piece_in, Result_out]):
    """What is to be done with pieces of images under `root`, small enough to be sent to another process."""

    @property
    def root(self) -> ImageRoot:
        """What the names in a piece are relative to."""

    def load(self, backend: Backend, workers: int) -> Loaded[Piece_in, Result_out]:
        """Load the networks, once for all pieces.

        Args:
            backend: The device on which they run.
            workers: Threads that read images.

        Raises:
            InputError: If the networks cannot be had.
        """


class Engine(Protocol):
    """Where the work is done."""

    def stream_results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> AbstractContextManager[Iterator[Stored]]:
        """Open a block that gives `then(result)` for the results of `pieces`, in any order.

        Networks are loaded when the block is entered, and what was started ends with it. `then` runs in this process.

        Args:
            work: What is to be done with a piece.
            pieces: At least one.
            then: Stores a result.
            on_images: Told how many images are done.

        Raises:
            InputError: If the work cannot be done.
        """


def run_piece(work_loaded: Loaded[Piece, Result], piece: Piece) -> Iterator[Result]:
    """Yield the results of one piece unchanged, for a process that sends them on."""
    return work_loaded([piece], _return_unchanged, _tell_nobody)


def make_portable(error: Exception) -> Exception:
    """Return an error that another process can raise: its kind where a user can act on it, else its traceback."""
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
