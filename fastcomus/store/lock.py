"""One writer per run folder: a second process is told who writes there already.

The lock is the operating system's, so that a killed process leaves none behind. Who holds it stands in a file beside
it, because a locked file cannot be read on every system. Both are removed when the writer has ended.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from fastcomus.errors import InputError

_LOCK = ".writer.lock"
_HOLDER = ".writer.json"
LOCK_FILES = (_LOCK, _HOLDER)
Method = TypeVar("Method", bound=Callable[..., Any])


class SoleWriter:
    """The lock of one folder. Nothing is touched before `held`, nor where the folder cannot be written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._depth = 0
        self._lock: FileLock | None = None
        self._guard = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Nobody else writes to the folder inside the block; blocks may be nested.

        A folder that does not exist yet is claimed by the first write to it. Raises InputError when another process
        holds the lock.
        """
        self._depth += 1
        try:
            if self.folder.is_dir():
                self.claim()
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._release()

    @property
    def is_held(self) -> bool:
        return self._lock is not None

    def claim(self) -> None:
        """Take the lock if `held` asks for it and it is not taken yet."""
        with self._guard:
            if self._depth == 0 or self._lock is not None or not os.access(self.folder, os.W_OK):
                return
            lock = FileLock(self.folder / _LOCK, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise InputError(
                    f"{self.folder} is in use by {_describe_holder(self.folder)}; wait until that has ended, or choose "
                    "another folder."
                ) from None
            except (OSError, NotImplementedError):  # a file system without locks: as it was before there were any
                return
            self._lock = lock
            _write_holder(self.folder)

    def _release(self) -> None:
        if self._lock is None:
            return
        for name in (_HOLDER, _LOCK):  # while it is held, so that no other's is removed
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError:  # Windows does not remove open files; an empty lock file harms nobody
                pass
        self._lock.release()
        self._lock = None


def _write_holder(folder: Path) -> None:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        (folder / _HOLDER).write_text(json.dumps(facts), encoding="utf-8")
    except OSError:  # a full disk: the work itself will say so
        pass


def _describe_holder(folder: Path) -> str:
    try:
        facts = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {int(facts['pid'])} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
