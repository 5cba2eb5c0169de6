"""Compilation of functions by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by numba on its first call, cached on disk where that can be written; it releases the GIL."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, **options)
    except RuntimeError:
        compiled = numba.njit(function, **options)
    return compiled
