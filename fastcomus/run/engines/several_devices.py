"""Share images among several devices of one machine, with a process for each; this process writes all files.

Each process has at most two pieces and waits until its results are taken, so memory does not grow with the images.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from fastcomus.errors import InputError
from fastcomus.progress import count_decoded
from fastcomus.run.engines.work import Piece, Result, Stored, Work, make_portable, run_piece

_PIECES_EACH = 2  # one in work and one waiting


def parse_devices(wanted: str) -> list[str]:
    """Return the names of devices.

    Args:
        wanted: One name, several such as "cuda:0,cuda:1", or "cuda:all". "cpu,cpu" makes two processes on the CPU.

    Raises:
        InputError: For a GPU named twice, an unknown name among several, or "cuda:all" without a GPU.
    """
    if wanted == "cuda:all":
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise InputError("--device cuda:all was asked for and this machine has 0 CUDA devices; use --device auto.")
        return [f"cuda:{index}" for index in range(count)]
    devices = [name.strip() for name in wanted.split(",")]
    if len(devices) == 1 and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", devices[0]):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N; got {wanted!r}.")
    if len(devices) > 1:
        if unknown := [name for name in devices if name != "cpu" and not name.startswith("cuda:")]:
            raise InputError(
                f"of several, a device must be cpu or cuda:N; got {unknown[0]!r} in {wanted!r}, such as cuda:0,cuda:1."
            )
        if twice := [name for name in devices if name != "cpu" and devices.count(name) > 1]:
            raise InputError(f"--device {wanted} names {twice[0]} twice; name each once.")
    return devices


class SeveralDevices:
    """One process per device, each with `workers` threads that read images and a share of the cores."""

    def __init__(self, devices: Sequence[str], workers: int) -> None:
        self.devices = tuple(devices)
        self.workers = workers

    @contextmanager
    def stream_results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> Iterator[Iterator[Stored]]:
        """See `Engine.stream_results`."""
        import torch

        devices = self.devices[: len(pieces)]
        threads = max(1, torch.get_num_threads() // len(devices))
        processes = [_Process(work, device, self.workers, threads) for device in devices]
        try:
            for process in processes:
                process.receive()  # "ready", or the error with which loading failed
            yield _collect_results(processes, pieces, then, on_images)
        finally:
            for process in processes:
                process.end()


class _Process:
    """A started process and the connection to it.

    It sends ("ready", None), ("result", Result), after each piece ("done", counts of where its images were decoded),
    and ("failed", error).
    """

    def __init__(self, work: Any, device: str, workers: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self.device = device
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work, device, workers, threads), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection breaks when the process ends

    def receive(self) -> tuple[str, Any]:
        """Return the next message; raise the error with which the process failed, or InputError if it has ended."""
        try:
            said, value = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=10)
            raise InputError(
                f"the process on {self.device} has ended by itself (exit code {self._process.exitcode}), killed or out "
                "of memory; start the same command again, it goes on from here."
            ) from None
        if said == "failed":
            raise value
        return said, value

    def give(self, piece: Any) -> None:
        with contextlib.suppress(OSError):  # the process has ended; `receive` raises for it
            self.connection.send(piece)

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _collect_results(
    processes: Sequence[_Process],
    pieces: Sequence[Piece],
    then: Callable[[Any], Stored],
    on_images: Callable[[int], None],
) -> Iterator[Stored]:
    waiting = deque(pieces)
    by_connection = {process.connection: process for process in processes}

    def give(process: _Process) -> None:
        if waiting:
            process.give(waiting.popleft())

    for _ in range(_PIECES_EACH):
        for process in processes:
            give(process)
    left = len(pieces)
    while left:
        for connection in wait(list(by_connection)):
            process = by_connection[connection]  # type: ignore[index]
            said, value = process.receive()
            if said == "done":
                count_decoded(value)
                left -= 1
                give(process)
            else:
                stored = then(value)
                on_images(value.images)
                yield stored


def _serve(connection: Connection, work: Any, device: str, workers: int, threads: int) -> None:
    """Load the work, then do pieces until the connection breaks; runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is handled by the process that started this one
    import torch

    from fastcomus.backends import choose
    from fastcomus.backends.read_ahead import take_decoded_counts

    torch.set_num_threads(threads)
    pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, pieces), daemon=True).start()
    try:
        backend = choose.select(device)
        loaded = work.load(backend, workers)
        connection.send(("ready", None))
        while (piece := pieces.get()) is not None:
            for result in run_piece(loaded, piece):
                connection.send(("result", result))
            connection.send(("done", take_decoded_counts(backend)))
    except (BrokenPipeError, ConnectionResetError):
        pass  # the process that started this one has ended
    except Exception as error:
        with contextlib.suppress(OSError):
            connection.send(("failed", make_portable(error)))


def _receive(connection: Connection, pieces: queue.SimpleQueue[Any]) -> None:
    """Queue pieces as they come, in a thread, so that the sender never waits; None when the connection breaks."""
    try:
        while True:
            pieces.put(connection.recv())
    except (EOFError, OSError):
        pieces.put(None)
