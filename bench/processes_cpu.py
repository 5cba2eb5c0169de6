"""What this process and all that it started use, while they are there: CPU-seconds and memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass
class Used:
    """By the end of the block: `seconds` of CPU of all processes, and the `peak_mib` of the largest."""

    seconds: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def watch_cpu() -> Iterator[Used]:
    used, ended = Used(), threading.Event()
    before, seen = _read_cpu_seconds(used), dict[int, float]()

    def watch() -> None:
        while True:
            seen.update(_read_cpu_seconds(used))
            used.seconds = sum(now - before.get(process, 0.0) for process, now in seen.items())
            if ended.wait(0.2):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield used
    finally:
        ended.set()
        thread.join()


def _read_cpu_seconds(used: Used) -> dict[int, float]:
    """Of this process and its children's children, by process."""
    own, seconds = psutil.Process(), {}
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended
            seconds[process.pid] = sum(process.cpu_times()[:2])
            used.peak_mib = max(used.peak_mib, process.memory_info().rss / 2**20)
    return seconds
