"""Threads that each compute alone, instead of splitting every operation among all."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import threadpoolctl
from threadpoolctl import ThreadpoolController, threadpool_limits


class Threads:
    """A number of threads to work in; a single one is the caller's own."""

    def __init__(self, count: int, pool: ThreadPoolExecutor | None) -> None:
        self.count = count
        self._pool = pool

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Apply `function` to every item in threads; results in order."""
        return [function(item) for item in items] if self._pool is None else list(self._pool.map(function, items))


@contextmanager
def start_threads(count: int) -> Iterator[Threads]:
    """Start `count` threads that compute alone."""
    with SINGLE_BLAS.hold():
        if count == 1:
            yield Threads(1, None)
            return
        with ThreadPoolExecutor(count, initializer=limit_to_one_thread) as pool:
            yield Threads(count, pool)


class _SingleBlas:
    """Lets NumPy's BLAS take one thread for each product, in the whole process, while anybody holds it.

    Its own threads would wait busily beside ours, and the last digits of a product follow their number. A BLAS that
    OpenMP runs is left alone: it has a number for each thread that calls it.
    """

    def __init__(self) -> None:
        self._lock, self._holders = Lock(), 0
        self._before: list[tuple[Any, int]] = []  # libraries and their numbers of threads

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if not self._holders:
                found = ThreadpoolController().select(user_api="blas").lib_controllers
                own = [one for one in found if getattr(one, "threading_layer", None) != "openmp"]
                self._before = [(one, one.num_threads) for one in own]
                _set_numbers([(one, 1) for one in own])
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    _set_numbers(self._before)


SINGLE_BLAS = _SingleBlas()


def _set_numbers(numbers: list[tuple[Any, int]]) -> None:
    """Set the threads of libraries, from whichever thread this is."""
    _release_openblas()
    for library, number in numbers:
        library.set_num_threads(number)
    _release_openblas()


def _release_openblas() -> None:
    """Let any thread set OpenBLAS's number next: from 3.8 on, threadpoolctl leaves that to the first one that did."""
    controller: Any = getattr(threadpoolctl, "OpenBLASController", None)
    if hasattr(controller, "clear_controlling_thread"):
        controller.clear_controlling_thread(force=True)


def limit_to_one_thread() -> None:
    """Let the calling thread, and no other, compute alone in torch, MKL, FAISS and all else that uses OpenMP."""
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "get_num_threads"):  # else it is not there, or another thread is importing it
        torch.get_num_threads()  # sets a new thread's number when it is first asked for, and would undo the next line
    threadpool_limits(1, user_api="openmp")  # OpenMP keeps the number for each thread that starts work
    library = None if torch is None else Path(torch.__path__[0], "lib", "libtorch_cpu.so")
    if library is not None and library.exists():  # elsewhere on other systems and in builds of one's own
        # MKL goes by OpenMP's number until somebody calls torch.set_num_threads, and by that one from then on.
        set_own_number = getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
        if set_own_number is not None:  # there is no MKL on ARM
            set_own_number(1)
