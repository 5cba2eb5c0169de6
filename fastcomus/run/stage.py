"""For every stage that ended a line of the log: how much, how fast, with how much memory, on which device.

Its seconds are added up in the run folder, for the report.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastcomus.backends.decoded_images import take_decoded_counts
from fastcomus.errors import InputError
from fastcomus.progress import _counts, _decoded
from fastcomus.store.integrity import seal_json
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import read_sealed

Method = TypeVar("Method", bound=Callable[..., Any])


def require_sole_writer(method: Method) -> Method:
    """A stage of the pipeline that nobody disturbs: of processes that train together, the first holds the lock."""

    @functools.wraps(method)
    def alone(self: Any, *arguments: Any, **settings: Any) -> Any:
        if not self.processes.is_first:
            return method(self, *arguments, **settings)
        with self.folder.writer.hold():
            return method(self, *arguments, **settings)

    return alone  # type: ignore[return-value]


log = logging.getLogger("fastcomus")
TIMES = "times.json"


def report_stage(method: Method) -> Method:
    """A stage of the pipeline that tells of itself when it has ended.

    Its counts are what it gives to `count`; the line's fields are in the record's `fields`, for `log_format.py`: stage,
    seconds, counts, per_s, peak_memory_bytes and device. Before it comes one on which device images were decoded, and
    why not the others, where one can. Under `require_sole_writer` the seconds are added to those that the stage took
    in this
    run folder before.
    """
    stage = method.__name__.strip("_").replace("_", "-")

    @functools.wraps(method)
    def told(self: Any, *arguments: Any, **settings: Any) -> Any:
        started, written = time.monotonic(), self.folder.written
        counts: dict[str, int] = {}
        decoded: Counter[str] = Counter()
        outer, outer_decoded = _counts.set(counts), _decoded.set(decoded)
        try:
            result = method(self, *arguments, **settings)
        finally:
            _counts.reset(outer)
            _decoded.reset(outer_decoded)
        seconds = time.monotonic() - started
        decoded.update(take_decoded_counts(self.backend))
        _tell_decoded(stage, decoded)
        tell(stage, seconds, counts, str(self.backend.device))
        if self.folder.writer.is_held and self.folder.written > written:  # one that is up to date takes no time
            taken = read_stage_seconds(self.folder)
            self.folder.write_json(TIMES, seal_json({**taken, stage: round(taken.get(stage, 0.0) + seconds, 3)}))
        return result

    return told  # type: ignore[return-value]


def read_stage_seconds(folder: RunFolder) -> dict[str, float]:
    """Seconds that each stage took in a run folder, over all times it ended; {} where that is not known or damaged."""
    file = folder.resolve_file(TIMES)
    try:
        return read_sealed(file) if file.exists() else {}
    except InputError:
        return {}


def tell(stage: str, seconds: float, counts: dict[str, int], device: str) -> None:
    """Write the line. The rate is that of the first of `counts`, over all that the stage looked at."""
    peak = get_peak_memory_bytes()
    fields: dict[str, Any] = {"stage": stage, "seconds": round(seconds, 3), **counts, "device": device}
    parts = [f"{count} {name}" for name, count in counts.items()]
    if counts and seconds > 0:
        fields["per_s"] = round(next(iter(counts.values())) / seconds, 2)
        parts[0] += f" ({fields['per_s']:.1f}/s)"
    if peak is not None:
        fields["peak_memory_bytes"] = peak
        parts.append(f"peak memory {peak / 1e9:.2f} GB")
    log.info("%s: ended after %.1f s, %s", stage, seconds, ", ".join([*parts, device]), extra={"fields": fields})


def _tell_decoded(stage: str, decoded: Mapping[str, int]) -> None:
    if decoded:
        # Most first, not in the order in which threads came.
        ordered = {what: decoded[what] for what in sorted(decoded, key=lambda what: (-decoded[what], what))}
        told = ", ".join(f"{number} {what}" for what, number in ordered.items())
        log.info("%s: images decoded: %s", stage, told, extra={"fields": {"decoded": ordered}})


def get_peak_memory_bytes() -> int | None:
    """The most memory this process has had so far; None on Windows, where Python does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
