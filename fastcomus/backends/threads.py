"""Threads that each do whole matrix products, instead of sharing every product among all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


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
    """Start `count` threads, in each of which torch and FAISS use one thread."""
    if count == 1:
        yield Threads(1, None)
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=_work_alone) as pool:
            yield Threads(count, pool)
    finally:
        torch.set_num_threads(before)


def _work_alone() -> None:
    torch.set_num_threads(1)
    if faiss := sys.modules.get("faiss"):  # which has an OpenMP of its own
        faiss.omp_set_num_threads(1)
