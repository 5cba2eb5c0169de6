"""Progress bars with rate and time left, shown only on a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from fastcomus.processes import detect_process_group


@contextmanager
def show_progress(task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs, if standard error is a terminal and this is the first of several processes.

    Args:
        task: What is done.
        total: How many units there are.
        unit: What they are called.
        done: How many were done before.

    Yields:
        A function to be called with the number of further units done.
    """
    if not sys.stderr.isatty() or not detect_process_group().is_first:
        yield lambda count: None
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
