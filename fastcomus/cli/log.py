"""The log as lines for people, or as an object of JSON a line (--log-json)."""

from __future__ import annotations

import json
import logging
import time


class JsonLines(logging.Formatter):
    """`time` (UTC, ISO 8601), `level`, `message`, and the fields of a stage's line (`stage_report.py`)."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**fields, **getattr(record, "fields", {})})


def log_as_json() -> None:
    """From now on, on standard error."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonLines())


def say(text: str, exit_code: int) -> None:
    """How the command ends: a line as the log's are, whatever the log's level."""
    handlers = logging.getLogger().handlers
    if any(isinstance(handler.formatter, JsonLines) for handler in handlers):
        logging.getLogger("fastcomus").error(text, extra={"fields": {"exit_code": exit_code}})
    else:
        import typer

        typer.echo(f"fastcomus: {text}", err=True)
