"""Write the log as lines of text, or with --log-json as one JSON object per line."""

from __future__ import annotations

import json
import logging
import time


class JsonLines(logging.Formatter):
    """Formats a record as JSON: time (UTC, ISO 8601), level, message, and the fields of a stage (`run.stage`)."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps({**fields, **getattr(record, "fields", {})})


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
