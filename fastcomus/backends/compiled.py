"""Compilation of functions by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function on its first call; it releases the GIL while it runs.

    Args:
        function: A function that numba can compile.

    Returns:
        The compiled function, cached on disk for later processes where there is a folder to write to.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, **options)
    except RuntimeError:
        compiled = numba.njit(function, **options)
    return compiled
