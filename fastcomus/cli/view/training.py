"""`fastcomus train` as a process of its own, which the page starts, watches and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError

_LINES_SHOWN = 6


class Training:
    """The training of a run. `arguments` go to `fastcomus train`."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._line = [sys.executable, "-m", "fastcomus", "train", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()

    def start(self) -> None:
        """Start training; InputError if it runs already."""
        if self._process is not None and self._process.poll() is None:
            raise InputError("training runs already.")
        self._remove_log()
        handle, name = tempfile.mkstemp(prefix="fastcomus-train-", suffix=".log")
        self._log = Path(name)
        with os.fdopen(handle, "wb") as log:
            self._process = subprocess.Popen(self._line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        """Ask it to stop at the next safe point, from which it goes on when started again."""
        if self._process is not None and self._process.poll() is None:
            if os.name == "nt":  # where one process cannot send another Ctrl-C; it goes on from its last checkpoint
                self._process.terminate()
            else:
                self._process.send_signal(signal.SIGINT)

    def describe(self) -> dict[str, Any]:
        """Return `state` ("none", "running", "done", "stopped" or "failed") and the last lines that it wrote."""
        if self._process is None:
            return {"state": "none", "lines": []}
        code = self._process.poll()
        state = {None: "running", 0: "done", 130: "stopped"}.get(code, "failed")
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4_000))
            lines = log.read().decode(errors="replace").splitlines()
        return {"state": state, "lines": lines[-_LINES_SHOWN:]}

    def close(self) -> None:
        """Stop it and wait."""
        self.stop()
        if self._process is not None:
            self._process.wait()
        self._remove_log()

    def _remove_log(self) -> None:
        if self._process is not None:
            self._log.unlink(missing_ok=True)
