"""Which engine does the work: this process, one process for each device (`several_devices.py`), or Ray (`ray.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fastcomus.backends.interface import Backend
from fastcomus.errors import InputError, suggest_names
from fastcomus.run.engines.work import Engine, Piece, Result, Stored, Work

ENGINES = ("local", "ray")


class ThisProcess:
    """The engine that does everything in this process, on one device."""

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
        """See `Engine.stream_results`."""
        yield work.load(self.backend, self.workers)(pieces, then, on_images)


def choose_engine(
    name: str, address: str, device: str, devices: Sequence[str], backend: Backend, workers: int | None, cores: int
) -> Engine:
    """Choose an engine before anything is loaded or started.

    Args:
        name: "local" or "ray".
        address: Of a Ray cluster; "" starts Ray on this machine.
        device: The device as it was asked for.
        devices: The devices of this machine that it means.
        backend: The first of them.
        workers: Threads that read images in every process; None takes a share of the cores.
        cores: Cores of this machine.

    Raises:
        InputError: For an unknown name, or an address without Ray.
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
