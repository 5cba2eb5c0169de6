"""What a user is meant to see: bad input, and memory that ran out."""

from __future__ import annotations

import difflib
import errno
from dataclasses import dataclass
from typing import Any


def suggest_names(name: str, known: Any) -> str:
    """How a sentence ends: '; did you mean X?' for the known names nearest to `name`, else '.'."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "."


_SIGNS_OF_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "can't start new thread",
)


@dataclass(frozen=True)
class Sentence:
    """How the command line ends: what it prints, in one line, and the exit code."""

    text: str
    exit_code: int


class InputError(ValueError):
    """Something the user gave cannot be used: one sentence saying what was wrong, what was got, what to do.

    The command line prints the sentence and exits with code 2.
    """


def explain_error(error: BaseException) -> Sentence | None:
    """What a user is told of `error`; None where it is a fault of the program, which a traceback explains better."""
    first = str(error).strip().split("\n")[0][:200]
    if is_out_of_memory(error):
        return Sentence(
            f"memory ran out ({first or type(error).__name__}); free some, or lower --workers, --embed-batch, "
            "--images-at-once, --predict-batch or --cache-gb; the same command goes on from here.",
            3,
        )
    if isinstance(error, InputError):
        return Sentence(str(error), 2)
    if isinstance(error, OSError) and error.filename is not None:
        return Sentence(f"{error.filename} cannot be used ({error.strerror}); see to it and run again.", 2)
    return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory, of the machine or of its CUDA device, ran out: by Python, NumPy, Arrow, torch or a C++ library.

    An error that was raised because of such a one counts as well.
    """
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS_OF_NO_MEMORY):
            return True
        error = error.__cause__
    return False


def get_first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
