"""Write the log as lines of text, or with --log-json as one JSON object per line."""

from __future__ import annotations

import importlib.util
import json
import logging
import shlex
import sys
import time
from pathlib import Path
from typing import TextIO

from fastcomus.errors import InputError
from fastcomus.processes import detect_process_group
from fastcomus.progress import silence_progress


class JsonLines(logging.Formatter):
    """Formats a record as JSON: time (UTC, ISO 8601), level, message, and the fields of a stage (`run.stage`)."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**fields, **getattr(record, "fields", {})})


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is now: while a bar is shown, rich has lines printed above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # not StreamHandler's, which would set the stream

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """What standard error is now."""
        return sys.stderr


def start_log() -> None:
    """Log to standard error: what fastcomus says, and warnings of libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[StderrHandler()])
    # Of several processes that train together only the first one logs.
    logging.getLogger("fastcomus").setLevel(logging.INFO if detect_process_group().is_first else logging.WARNING)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it would say of a damaged image is told as its reason


def set_loudness(quiet: bool, verbose: bool) -> None:
    """Log warnings alone and show no progress, or log with times and what libraries say."""
    if quiet and verbose:
        raise InputError("give either --quiet or --verbose, not both.")
    if quiet:
        logging.getLogger("fastcomus").setLevel(logging.WARNING)
        silence_progress()
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))


def log_as_json() -> None:
    """Write the log as JSON from now on."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())


def say(text: str, exit_code: int) -> None:
    """Write the last line of a command that failed, in the format of the log but at every log level.

    Args:
        text: The sentence.
        exit_code: Of the process; a field of the JSON object.
    """
    handlers = logging.getLogger().handlers
    if any(isinstance(handler.formatter, JsonLines) for handler in handlers):
        logging.getLogger("fastcomus").error(text, extra={"fields": {"exit_code": exit_code}})
    else:
        import typer

        typer.echo(f"fastcomus: {text}", err=True)


def print_json(value: object) -> None:
    """Write a value to standard output, for other programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def suggest_next(run: Path, *commands: str) -> None:
    """Say at the end of a command what may come next, without what needs packages or images that are not there."""
    from fastcomus.store.run_folder import RunFolder

    clusters = RunFolder(run).read_manifest("clusters") or {"images": True}
    left_out = [] if clusters["images"] else ["train", "predict", "export"]
    left_out += ["view"] if list_missing_for_view() else []
    commands = tuple(one for one in commands if one.split()[0] not in left_out)
    where = "" if run == Path("comus-run") else f" --run {shlex.quote(str(run))}"
    logging.getLogger("fastcomus").info("next: %s", ", or ".join(f"fastcomus {one}{where}" for one in commands))


def list_missing_for_view() -> list[str]:
    """List the packages that `view` needs and that are not installed."""
    return [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
