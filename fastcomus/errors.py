"""Errors that a user is meant to see: unusable input, and memory that ran out."""

from __future__ import annotations

import difflib
import errno
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SIGNS_OF_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "can't start new thread",
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER, ...
    "allocator_failure",  # nvJPEG
    "memoryallocation",  # the CUDA runtime's cudaErrorMemoryAllocation
    "status_internal_error_host_allocation_failed",  # cuDNN 9
    "status_internal_error_device_allocation_failed",
)
_MOST_BESIDE = 10_000  # names that a missing one is compared with
# The texts of these may quote a file's name or a value, so that only their type counts.
_QUOTING_ERRORS = (OSError, ValueError, LookupError, SyntaxError)


@dataclass(frozen=True)
class Sentence:
    """What the command line prints at its end, in one line, and its exit code."""

    text: str
    exit_code: int


class InputError(ValueError):
    """Something the user gave cannot be used: one sentence saying what was wrong, what was got, what to do.

    The command line prints the sentence and exits with code 2.
    """


def explain_error(error: BaseException) -> Sentence | None:
    """Return what a user is told of `error`, or None for a fault of the program, which needs a traceback."""
    if is_out_of_memory(error):
        return Sentence(
            f"memory ran out ({get_first_line(error, 200)}); free some, or lower --workers, --embed-batch, "
            "--images-at-once, --predict-batch or --cache-gb; the same command goes on from here.",
            3,
        )
    if isinstance(error, InputError):
        return Sentence(str(error), 2)
    if isinstance(error, OSError) and error.filename is not None:
        return Sentence(f"{error.filename} cannot be used ({error.strerror}); see to it and run again.", 2)
    if isinstance(error, RuntimeError) and str(error).startswith("operator torchvision::"):
        return Sentence(
            "torch and torchvision are of different builds (one for the CPU, one for CUDA); install both at once from "
            "one index: pip install --force-reinstall torch torchvision --index-url "
            "https://download.pytorch.org/whl/cpu, or without --index-url for CUDA.",
            2,
        )
    return None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether the machine or its GPU ran out of memory, as Python, NumPy, Arrow, torch, CuPy or a C++ library says it.

    Args:
        error: An exception; those that caused it (`__cause__`) are looked at as well.

    Returns:
        True for MemoryError, ENOMEM, any class called OutOfMemoryError, and the messages of C++ and CUDA libraries.
    """
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
            return True
        text = "" if isinstance(error, _QUOTING_ERRORS) else str(error).lower()
        if any(sign in text for sign in _SIGNS_OF_NO_MEMORY):
            return True
        error = error.__cause__
    return False


def get_first_line(error: BaseException, limit: int | None = None) -> str:
    """Return the first line of an error's message, at most `limit` characters; its class's name if it has none."""
    return str(error).strip().split("\n")[0][:limit] or type(error).__name__


def suggest_names(name: str, known: Iterable[str]) -> str:
    """Return how a sentence ends: '; did you mean X?' for the `known` names nearest to `name`, else '.'."""
    close = difflib.get_close_matches(name, dict.fromkeys(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "."


def suggest_path(path: Path) -> str:
    """Return how a sentence on a missing file or folder ends: '; did you mean PATH?' for near names beside it, or ''.

    Where one of its folders is missing, that folder's name is the one compared.
    """
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    try:
        beside = [entry.name for entry in itertools.islice(os.scandir(missing.parent), _MOST_BESIDE)]
    except OSError:
        return ""
    rest = path.relative_to(missing)
    near = difflib.get_close_matches(missing.name, [name for name in beside if name != missing.name], n=3, cutoff=0.65)
    there = [str(one) for name in near if (one := missing.parent / name / rest).exists()]
    return f"; did you mean {escape_invalid_utf8(' or '.join(there))}?" if there else ""


def escape_invalid_utf8(text: str) -> str:
    r"""Return `text` with every byte that is not UTF-8 (which Python keeps as a lone surrogate) written as \xNN."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
