"""Where the per-image stages compute: in this process, in one per device (`several_devices.py`), on Ray
(`distributed.py`).

A stage describes its work once, as a `Work` that can be sent to other processes, and cuts it into pieces: runs of image
names whose results do not depend on the other pieces. Whatever the engine, the process that was started writes every
file, so the folder has one writer and the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fastcomus.backends.interface import Backend
from fastcomus.errors import InputError, suggest_names
from fastcomus.run.engines.work import Engine, Piece, Result, Stored, Work

ENGINES = ("local", "ray")


class ThisProcess:
    """Everything here, on one device."""

    def __init__(self, backend: Backend, workers: int) -> None:
        self.backend = backend
        self.workers = workers

    @contextmanager
    def stream_results(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        then: Callable[[Result], Stored],
        on_images: Callable[[int], None],
    ) -> Iterator[Iterator[Stored]]:
        yield work.load(self.backend, self.workers)(pieces, then, on_images)


def choose_engine(
    name: str, address: str, device: str, devices: Sequence[str], backend: Backend, workers: int | None, cores: int
) -> Engine:
    """The engine `name`, "local" or "ray", before anything is loaded or started.

    `address`: of a Ray cluster. `device`: as it was asked for; `devices`: one or several of this machine. `workers`:
    threads that read images in every process, None for a share of the `cores`. Raises InputError.
    """
    if name not in ENGINES:
        raise InputError(f"--engine must be {' or '.join(ENGINES)}; got {name!r}{suggest_names(name, ENGINES)}")
    if name == "ray":
        from fastcomus.run.engines.ray import make_ray_engine

        return make_ray_engine(address, device, workers)
    if address:
        raise InputError(f"--address {address} is that of a Ray cluster; add --engine ray, or leave it out.")
    if len(devices) > 1:
        from fastcomus.run.engines.several_devices import SeveralDevices

        return SeveralDevices(devices, workers or max(1, cores // len(devices)))
    return ThisProcess(backend, workers or cores)
