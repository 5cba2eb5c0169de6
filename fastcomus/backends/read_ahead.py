"""Work done in threads a few steps ahead of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 32  # results that wait: a batch, so that the next one is ready when the network has done its own


def read_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = AHEAD
) -> Iterator[Result]:
    """Apply a function to items in threads, ahead of the consumer; memory stays bounded however many items there are.

    Each thread computes alone: splitting small operations among further threads would only take cores from the
    consumer.

    Args:
        work: Applied to every item.
        items: The items.
        workers: Number of threads.
        ahead: Most results that wait to be consumed.

    Yields:
        The results, in order.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read-ahead", initializer=_work_alone) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead + workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _work_alone() -> None:
    torch.get_num_threads()  # torch sets a new thread's number when it is first asked for, and would undo the next line
    threadpool_limits(1, user_api="openmp")  # OpenMP keeps the number for each thread that starts work
