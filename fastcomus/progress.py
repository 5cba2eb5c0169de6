"""Progress with rate and time left: a bar on a terminal and in a notebook, elsewhere a line of the log now and then."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from fastcomus.processes import detect_process_group

log = logging.getLogger("fastcomus")
FIRST_LINE_S, LINE_EVERY_S = 10.0, 60.0  # until the first line of progress in a log, and at most between two
_silent = False


@contextmanager
def show_progress(task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs, if this is the first of several processes.

    Args:
        task: What is done.
        total: How many units there are.
        unit: What they are called.
        done: How many were done before.

    Yields:
        A function to be called with the number of further units done.
    """
    if _silent or not detect_process_group().is_first:
        yield lambda count: None
        return
    if _is_in_notebook():
        from tqdm import tqdm

        with tqdm(desc=task, total=total, initial=done, unit=f" {unit}", file=sys.stderr, leave=False) as bar:
            yield bar.update
        return
    if not sys.stderr.isatty():
        yield _ProgressLines(task, total, unit, done).advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else f"- {unit}/s", style="dim")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        handle = progress.add_task(task, total=total, completed=done)
        yield lambda count: progress.advance(handle, count)


def show_log() -> None:
    """Have fastcomus's log written to standard error, in a program that has set up no logging of its own."""
    if log.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def silence_progress() -> None:
    """Show no progress from now on."""
    global _silent
    _silent = True


class _ProgressLines:
    """Progress as lines of the log, fewer as time goes on, so that a log file says that work goes on."""

    def __init__(self, task: str, total: int, unit: str, done: int) -> None:
        self._told, self._total, self._unit, self._done, self._first = task, total, unit, done, done
        self._started = time.monotonic()
        self._next = self._started + FIRST_LINE_S
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Count further units done; may be called by several threads."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now < self._next or self._done >= self._total:
                return
            self._next = now + min(now - self._started, LINE_EVERY_S)
            rate = (self._done - self._first) / (now - self._started)
            left_s = (self._total - self._done) / rate if rate else 0.0
        told = self._told, self._done, self._total, self._unit, rate, format_estimate(left_s)
        log.info("%s: %d of %d %s, %.1f/s, about %s left", *told)


def format_estimate(seconds: float) -> str:
    """Format about how long something takes: seconds, at least one, up to a minute and a half, then minutes."""
    return f"{max(seconds, 1):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _is_in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


_counts: ContextVar[dict[str, int] | None] = ContextVar("counts", default=None)  # of the stage that runs now
_decoded: ContextVar[Counter[str] | None] = ContextVar("decoded", default=None)


def count(**counts: int) -> None:
    """Add to the counts in the line that the running stage logs; its rate is that of the count named first."""
    told = _counts.get()
    if told is not None:
        told.update({name: told.get(name, 0) + number for name, number in counts.items()})


def count_decoded(decoded: Mapping[str, int]) -> None:
    """Add to the counts of where the running stage decoded its images, as `backends` counts them."""
    told = _decoded.get()
    if told is not None:
        told.update(decoded)


@contextmanager
def collect_counts() -> Iterator[tuple[dict[str, int], Counter[str]]]:
    """Collect what `count` and `count_decoded` are told inside the block; blocks may be nested."""
    counts: dict[str, int] = {}
    decoded: Counter[str] = Counter()
    outer, outer_decoded = _counts.set(counts), _decoded.set(decoded)
    try:
        yield counts, decoded
    finally:
        _counts.reset(outer)
        _decoded.reset(outer_decoded)
