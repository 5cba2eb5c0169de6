"""Stages run in processes that are forked from one which has imported everything: a trial takes a second, not ten.

A trial may be killed at a chosen moment. Moments are counted, not timed: every time that Python opens a file of the
run folder for writing, renames, removes or makes something there, a moment passes, and the child kills itself before
the n-th. What a library was writing is cut at a random place first, as a kill within the write would.

`prepare` must be called before the first trial.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHANGES = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "shutil.rmtree": 0}  # event: place of the path
UNFINISHED = ".unfinished"

CONTEXT = multiprocessing.get_context("forkserver")


def prepare() -> None:
    """Let the fork server import and warm up this module's `warm_up` once."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", FASTCOMUS_OFFLINE="1")
    CONTEXT.set_forkserver_preload(["warm_imports"])


class Trial:
    """One run of `work(*arguments)` in a process of its own, which counts its moments in the folders `watched`.

    `exitcode`: as of `multiprocessing.Process`; `moments`: how many passed; `error`: the sentence it ended with.
    """

    def __init__(self, work: Callable[..., Any], *arguments: Any, watched: Path, **limits: Any) -> None:
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_child, args=(sender, str(watched), limits, work, arguments))
        process.start()
        sender.close()
        self.moments, self.error, self.code = 0, "", 0
        with contextlib.suppress(EOFError):  # killed
            self.moments, self.error, self.code = receiver.recv()
        process.join()
        self.exitcode = process.exitcode
        self.code = self.code or process.exitcode
        process.close()

    @property
    def was_killed(self) -> bool:
        return self.exitcode == -signal.SIGKILL


def _child(sender: Connection, watched: str, limits: dict[str, Any], work: Callable[..., Any], given: tuple) -> None:
    """`limits`: kill_at, the moment before which the process kills itself; seed, of where what it wrote is cut;
    memory_bytes, that it may have beyond what it has; file_bytes, that a file may have; on_moment(n), called at each.
    """
    from fastcomus.errors import explain_error

    logging.disable(logging.CRITICAL)
    moments = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal moments
        if event == "open":
            path, _, flags = arguments
            is_change = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else False
        else:
            is_change = event in CHANGES
            path = arguments[CHANGES[event]] if is_change else None
        if not is_change or not isinstance(path, str | Path) or not str(path).startswith(watched):
            return
        moments += 1
        if limits.get("on_moment"):
            limits["on_moment"](moments)
        if moments == limits.get("kill_at"):
            source = str(arguments[0])
            if event == "os.rename" and source.endswith(UNFINISHED) and limits.get("seed") is not None:
                with contextlib.suppress(OSError):
                    if os.stat(source).st_nlink == 1:  # a link is there whole, and so is what it leads to
                        os.truncate(source, random.Random(limits["seed"]).randrange(os.path.getsize(source) + 1))
            os.kill(os.getpid(), signal.SIGKILL)

    if "memory_bytes" in limits:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limits["memory_bytes"], resource.RLIM_INFINITY))
    if "file_bytes" in limits:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"], limits["file_bytes"]))
    sys.addaudithook(hook)
    try:
        work(*given)
        sender.send((moments, "", 0))
    except SystemExit as ended:
        sender.send((moments, "", ended.code))
    except BaseException as error:
        told = explain_error(error)
        sender.send((moments, told.text if told else repr(error), told.exit_code if told else 1))
        if told is None:
            raise
