"""How functions are compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled when it is first called, and kept for later processes where there is a folder to write to.

    It lets go of the GIL while it runs.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, **options)
    except RuntimeError:
        compiled = numba.njit(function, **options)
    return compiled
