"""Progress bars with rate and time left, shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastcomus.process_group import this_process


@contextmanager
def progress_bar(task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many more `unit`s are done. Silent when standard error is no terminal, and in
    all but the first of several processes."""
    if not sys.stderr.isatty() or not this_process().is_first:
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
