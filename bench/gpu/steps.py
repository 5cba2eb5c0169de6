"""Steps of parts, one after the other: each within its time, each number written down at once, faults as well."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench import harness

Part = tuple[str, Callable[[], Any]]
_LEAST_S = 10  # a step is not begun with less
_LINES = 12  # of a traceback that are kept


@dataclass(frozen=True)
class Step:
    """`list_parts` is called where the parts are run; what each returns, JSON can hold."""

    name: str
    limit_s: float
    list_parts: Callable[..., Iterable[Part]]


@dataclass(frozen=True)
class Event:
    """A part has begun (`value` None, `error` ""), or ended with a value or an error."""

    part: str
    seconds: float = -1.0
    value: Any = None
    error: str = ""


def run_steps(
    steps: Sequence[Step], given: Any, records: dict[str, Any], save: Callable[[], None], total_s: float, is_apart: bool
) -> None:
    """Run the steps that `records` does not hold as done; `save` is called after each part.

    Args:
        steps: In the order of their value.
        given: For `list_parts`.
        records: By step: `status`, `parts` (values), `seconds` and `failed` (by part).
        save: Writes the records.
        total_s: For all steps together.
        is_apart: Whether each runs in a process of its own, which is ended when its time is over. Else steps have no
            limits of their own, and the one at which all time is over ends with the part that it is at.
    """
    until = time.monotonic() + total_s
    for step in steps:
        if records.get(step.name, {}).get("status") == "done":
            continue
        left_s = until - time.monotonic()
        limit_s = min(step.limit_s, left_s) if is_apart else left_s
        if left_s < min(_LEAST_S, step.limit_s):
            records.setdefault(step.name, {"status": "no time left"})
        else:
            _run_step(step, given, records, save, limit_s, is_apart)
        save()
        harness.print_progress(f"{step.name}: {records[step.name]['status']}")


def list_faults(records: dict[str, Any]) -> list[str]:
    """Every part that failed or that disagrees with the CPU, and every step that was not done."""
    found = []
    for step, record in records.items():
        if record["status"] != "done":
            found.append(f"{step}: {record['status']}")
        found += [f"{step}, {part}: {error.splitlines()[-1]}" for part, error in record.get("failed", {}).items()]
        for part, value in record.get("parts", {}).items():
            if isinstance(value, dict) and value.get("agrees") is False:
                found.append(f"{step}, {part}: does not agree")
    return found


def _run_step(
    step: Step, given: Any, records: dict[str, Any], save: Callable[[], None], limit_s: float, is_apart: bool
) -> None:
    before = records.get(step.name, {})  # parts that were done before are not done again
    record: dict[str, Any] = {name: dict(before.get(name, {})) for name in ("parts", "seconds")}
    record |= {"status": "begun", "limit_s": round(limit_s), "failed": {}}
    records[step.name], now, status, until = record, "", "done", time.monotonic() + limit_s
    events = (_follow_apart if is_apart else _follow)(step, given, frozenset(record["parts"]), limit_s)
    with contextlib.closing(events):
        for event in events:
            if event.seconds < 0:
                now, is_over = event.part, time.monotonic() > until
                if is_over:
                    status = f"out of time before {now}"
                    break
                continue
            if not event.part:  # the process, not a part
                status = f"{event.error}, at {now}" if now else event.error
                break
            kind, value = ("failed", event.error) if event.error else ("parts", event.value)
            record[kind][event.part] = value
            record["seconds"][event.part] = round(event.seconds, 3)
            now = ""
            save()
            harness.print_progress(f"  {event.part}: {str(value).splitlines()[-1][:200]}")
    if record["failed"] and status == "done":
        status = f"{len(record['failed'])} of {len(record['seconds'])} parts failed"
    record["status"] = status


def _follow(step: Step, given: Any, done: Collection[str], limit_s: float = 0) -> Iterator[Event]:
    """Run the parts of a step that are not done; a failure ends that part alone."""
    try:
        for part, work in step.list_parts(given):
            if part in done:
                continue
            yield Event(part)
            started = time.perf_counter()
            try:
                value = work()
            except (Exception, SystemExit):
                told = "\n".join(traceback.format_exc().strip().splitlines()[-_LINES:])
                yield Event(part, time.perf_counter() - started, error=told)
            else:
                yield Event(part, time.perf_counter() - started, value)
    except Exception as error:
        yield Event("", 0.0, error=f"{type(error).__name__}: {error}")


def _follow_apart(step: Step, given: Any, done: Collection[str], limit_s: float) -> Iterator[Event]:
    """The same in a forked process, ended with what it started when its time is over."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_events, args=(sender, step, given, done))
    process.start()
    sender.close()
    until = time.monotonic() + limit_s
    try:
        while True:
            if not receiver.poll(max(0.0, until - time.monotonic())):
                yield Event("", 0.0, error=f"out of time after {limit_s:.0f} s")
                return
            try:
                yield receiver.recv()
            except EOFError:
                break
        process.join()
        if process.exitcode:
            yield Event("", 0.0, error=f"the process was lost (exit code {process.exitcode})")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


def _send_events(sender: Any, step: Step, given: Any, done: Collection[str]) -> None:
    os.setsid()  # a group of its own, that is ended as a whole
    for event in _follow(step, given, done):
        sender.send(event)
    sender.close()
