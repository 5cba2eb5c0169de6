"""Compilation of functions by numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from fastcomus.errors import InputError


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by numba on its first call, cached on disk where that can be written; it releases the GIL.

    Without numba, calling it raises an InputError that says so: what runs on a GPU does not need it.
    """
    if not has_numba():
        return _refuse
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, **options)
    except RuntimeError:
        compiled = numba.njit(function, **options)
    return compiled


@cache
def has_numba() -> bool:
    """Tell whether numba is here and can be imported, which takes half a second."""
    try:
        import numba  # noqa: F401
    except ImportError:
        return False
    return True


def _refuse(*arguments: object) -> Any:
    raise InputError("numba is not installed, which this needs on a CPU; run pip install numba.")
