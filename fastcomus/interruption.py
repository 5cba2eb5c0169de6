"""Ctrl-C: pressed once it ends the command at the next safe point, pressed twice immediately.

A safe point is where work has just been stored: after a shard, an image, a step of training. Only the command line
asks for this; in a Python program ctrl-C works as usual.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastcomus.processes import detect_process_group

log = logging.getLogger("fastcomus")

EXIT_CODE = 130  # what shells expect of a command that ctrl-C ended

_asked = threading.Event()


@contextmanager
def end_at_safe_points() -> Iterator[None]:
    """Delay the first ctrl-C in the block until `reach_safe_point`; the second raises KeyboardInterrupt immediately.

    Processes that train together are not delayed: they would stop at different steps and wait for one another.
    """
    if threading.current_thread() is not threading.main_thread() or detect_process_group().size > 1:
        yield
        return

    def first_time(number: int, frame: Any) -> None:
        _asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # In a thread: the signal may have come while this one was writing to the log.
        told = "stopping at the next safe point; ctrl-C again stops at once."
        threading.Thread(target=log.warning, args=(told,)).start()

    before = signal.signal(signal.SIGINT, first_time)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked.clear()


def is_asked() -> bool:
    """Whether ctrl-C was pressed, so that finished work should be stored before `reach_safe_point`."""
    return _asked.is_set()


def reach_safe_point() -> None:
    """Raise KeyboardInterrupt if ctrl-C was pressed."""
    if _asked.is_set():
        raise KeyboardInterrupt
