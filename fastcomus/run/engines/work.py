"""What a command gives to an engine: pieces of images, the work on them, and what is done with its results.

A command describes its work once, as a `Work` that can be sent to other processes, and cuts it into pieces: runs of
image names whose results do not depend on the other pieces. Whatever the engine, the process that was started writes
every file, so the run folder has one writer and the bytes are the same.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastcomus.errors import InputError, get_first_line, is_out_of_memory
from fastcomus.images.roots import ImageRoot

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

Piece = TypeVar("Piece")
Piece_in = TypeVar("Piece_in", contravariant=True)
Stored = TypeVar("Stored")


class OfImages(Protocol):
    """A result of one piece, or of a part of it."""

    @property
    def images(self) -> int:
        """How many images are done with it."""


Result = TypeVar("Result", bound=OfImages)
Result_out = TypeVar("Result_out", bound=OfImages, covariant=True)


class Loaded(Protocol[Piece_in, Result_out]):
    """Work whose networks are in memory."""

    def __call__(
        self, pieces: Sequence[Piece_in], then: Callable[[Result_out], Stored], on_images: Callable[[int], None]
    ) -> Iterator[Stored]:
        """Do some pieces.

        Args:
            pieces: The pieces.
            then: Called with every result, possibly in threads.
            on_images: Called with the number of images that have been done since the last call.

        Yields:
            What `then` returned for every result.
        """


class Work(Protocol[Piece_in, Result_out]):
    """What is to be done with pieces of images; small enough to be sent to another process."""

    @property
    def root(self) -> ImageRoot:
        """Where the images are."""

    def load(self, backend: Backend, workers: int) -> Loaded[Piece_in, Result_out]:
        """Load the networks, once for all pieces.

        Args:
            backend: The device that the networks run on.
            workers: Threads that read images.

        Raises:
            InputError: Where a network or its weights cannot be used.
        """


class Engine(Protocol):
    """A place where work is done."""

    def stream_results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> AbstractContextManager[Iterator[Stored]]:
        """Do work on pieces in the block of a `with` statement.

        When the block is entered, networks are loaded. When it is left, all started processes have ended.

        Args:
            work: The work.
            pieces: At least one piece.
            then: Called in this process with every result, in any order.
            on_images: Called with the number of images that have been done since the last call.

        Returns:
            A context manager that gives an iterator over what `then` returned.

        Raises:
            InputError: Where networks cannot be loaded, or a process or Ray has ended by itself.
        """


def run_piece(work_loaded: Loaded[Piece, Result], piece: Piece) -> Iterator[Result]:
    """Yield the results of one piece, for a process that sends them to the one that stores them."""
    return work_loaded([piece], _return_unchanged, _tell_nobody)


def make_portable(error: Exception) -> Exception:
    """Turn an error into one that can be raised in another process.

    Errors that are explained to the user keep their type; others become a RuntimeError with the traceback as text.
    """
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
