"""`@stage`: a command on a run folder that writes alone and ends with a line of the log.

The line says how much was done, how fast, with how much memory, on which device. The seconds are added up in the run
folder, for the report.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from fastcomus.errors import InputError
from fastcomus.progress import collect_counts
from fastcomus.run.workplace import Workplace
from fastcomus.store.integrity import seal_json
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import read_sealed
from fastcomus.store.shelf import finish_moves

log = logging.getLogger("fastcomus")

TIMES = "times.json"
_NOT_RATES = ("bytes",)  # of which so many a second would say nothing

Given = ParamSpec("Given")
Result = TypeVar("Result")
Command = Callable[Concatenate[Workplace, Given], Result]


def stage(writes: bool = True) -> Callable[[Command[Given, Result]], Command[Given, Result]]:
    """Make a command a stage: lock the run folder while it runs, and log what it did when it has ended.

    The stage is named after the function. Its counts are what it gives to `progress.count`. The log record's `fields`
    hold stage, seconds, counts, per_s, peak_memory_bytes and device.

    Args:
        writes: Whether the command writes to the run folder. If so no other process may write there meanwhile (of
            processes that train together the first one holds the lock), and its seconds are added to times.json
            unless it was up to date.

    Raises:
        InputError: By the command, where another process holds the lock.
    """

    def decorate(command: Command[Given, Result]) -> Command[Given, Result]:
        name = command.__name__.replace("_", "-")

        @functools.wraps(command)
        def run_stage(at: Workplace, *arguments: Given.args, **options: Given.kwargs) -> Result:
            with at.hold_folder() if writes else nullcontext():
                if writes and at.processes.is_first:
                    finish_moves(at.folder)
                    if at.folder.writer.is_held:
                        at.folder.remove_unfinished()
                started, written = time.monotonic(), at.folder.written
                with collect_counts() as (counts, decoded):
                    result = command(at, *arguments, **options)
                seconds = time.monotonic() - started
                decoded.update(at.take_decoded_counts())
                _log_decoded(name, decoded)
                log_stage(name, seconds, counts, at.describe_device())
                if at.folder.writer.is_held and at.folder.written > written:
                    taken = read_stage_seconds(at.folder)
                    added = {**taken, name: round(taken.get(name, 0.0) + seconds, 3)}
                    at.folder.write_json(TIMES, seal_json(added))
                return result

        return cast("Command[Given, Result]", run_stage)

    return decorate


def read_stage_seconds(folder: RunFolder) -> dict[str, float]:
    """Return the seconds that each stage took in a run folder, over all times it ended; {} if unknown or damaged."""
    file = folder.resolve_file(TIMES)
    try:
        return read_sealed(file) if file.exists() else {}
    except InputError:
        return {}


def log_stage(stage: str, seconds: float, counts: Mapping[str, int], device: str) -> None:
    """Write the line of a stage that has ended; the rate is that of the first of `counts`."""
    peak = get_peak_memory_bytes()
    fields: dict[str, Any] = {"stage": stage, "seconds": round(seconds, 3), **counts, "device": device}
    parts = [f"{count} {name}" for name, count in counts.items()]
    if counts and seconds > 0 and next(iter(counts)) not in _NOT_RATES:
        fields["per_s"] = round(next(iter(counts.values())) / seconds, 2)
        parts[0] += f" ({fields['per_s']:.1f}/s)"
    if peak is not None:
        fields["peak_memory_bytes"] = peak
        parts.append(f"peak memory {peak / 1e9:.2f} GB")
    log.info("%s: ended after %.1f s, %s", stage, seconds, ", ".join([*parts, device]), extra={"fields": fields})


def get_peak_memory_bytes() -> int | None:
    """Return the most memory that this process has had so far, in bytes; None on Windows, where Python does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _log_decoded(stage: str, decoded: Mapping[str, int]) -> None:
    """Say on which device images were decoded, and why not the others, where a device can decode at all."""
    if decoded:
        # Most first, not in the order in which threads came.
        ordered = {what: decoded[what] for what in sorted(decoded, key=lambda what: (-decoded[what], what))}
        told = ", ".join(f"{number} {what}" for what, number in ordered.items())
        log.info("%s: images decoded: %s", stage, told, extra={"fields": {"decoded": ordered}})
