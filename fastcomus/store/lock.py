"""One writer per run folder: a second process gets an error that names the first.

The operating system holds the lock, so that a killed process leaves none behind. The holder is described in a second
file, because some systems cannot read a locked one. A third is the lock of the names of clusters, which the writer lets
go while it trains for minutes, so that a person may write names meanwhile. All are removed when the writer ends.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fastcomus.errors import InputError

_LOCK = ".writer.lock"
_HOLDER = ".writer.json"
_NAMES = ".names.lock"
LOCK_FILES = (_LOCK, _HOLDER, _NAMES)
_NAMING_S = 10  # in which another process has written names long since


class SoleWriter:
    """The lock of one folder. Nothing is touched before `hold`, nor in a folder that cannot be written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._depth = 0
        self._lock: FileLock | None = None
        self._names: FileLock | None = None
        self._guard = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from writing to the folder in the block; blocks may be nested.

        A folder that does not exist yet is locked by the first write to it.

        Raises:
            InputError: Another process holds the lock.
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
        """Whether this process holds the lock."""
        return self._lock is not None

    def claim(self) -> None:
        """Take the lock if `hold` asks for it and it is not taken yet. Raises InputError as `hold` does."""
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
            self._claim_names()

    @contextmanager
    def release_names(self) -> Iterator[None]:
        """Let other processes write names of clusters in the block; this one writes none there."""
        if self._names is None:
            yield
            return
        self._names.release()
        try:
            yield
        finally:
            self._claim_names()

    @contextmanager
    def hold_names(self) -> Iterator[bool]:
        """Keep other processes from writing names in the block, and from writing anything if that is possible.

        Yields:
            Whether all may be written; False where another process writes the rest of the folder and left the names.

        Raises:
            InputError: Another process holds the lock of the names, too.
        """
        with ExitStack() as held:
            is_sole = True
            try:
                held.enter_context(self.hold())
            except InputError as in_use:
                is_sole, lock = False, FileLock(self.folder / _NAMES, thread_local=False)
                try:
                    held.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    raise in_use from None
            yield is_sole

    def _claim_names(self) -> None:
        lock = FileLock(self.folder / _NAMES, thread_local=False)
        with suppress(Timeout):  # whoever writes names so long has been stopped in the middle, and is done
            lock.acquire(timeout=_NAMING_S)
        self._names = lock

    def _release(self) -> None:
        if self._lock is None:
            return
        if self._names is not None:
            with suppress(OSError):
                (self.folder / _NAMES).unlink(missing_ok=True)
            self._names.release()
            self._names = None
        for name in (_HOLDER, _LOCK):  # while it is held, so that no other's is removed
            with suppress(OSError):  # Windows does not remove open files; an empty lock file is harmless
                (self.folder / name).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None


def _write_holder(folder: Path) -> None:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):  # a full disk: the work itself will say so
        (folder / _HOLDER).write_text(json.dumps(facts), encoding="utf-8")


def _describe_holder(folder: Path) -> str:
    try:
        facts = json.loads((folder / _HOLDER).read_text(encoding="utf-8"))
        return f"process {int(facts['pid'])} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
