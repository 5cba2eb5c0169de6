"""Choose where the per-image stages compute: in this process, in one per device, or on Ray.

A stage describes its work once, as a `Work` that can be sent to other processes, and cuts the images into pieces whose
results do not depend on one another. With every engine the process that the user started writes all files, so the
run folder has one writer and the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastcomus.errors import InputError, suggest_names
from fastcomus.run.engines.work import Engine, Piece, Result, Stored, Work

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

ENGINES = ("local", "ray")


def choose_engine(
    name: str,
    address: str,
    device: str,
    devices: Sequence[str],
    get_backend: Callable[[], Backend],
    workers: int | None,
    cores: int,
) -> Engine:
    """Return an engine; nothing is loaded or started yet.

    Args:
        name: "local" or "ray".
        address: Of a Ray cluster, or "".
        device: As the user gave it, for Ray.
        devices: One or several devices of this machine, for "local".
        get_backend: Returns that of the first of them, when there is work.
        workers: Threads that read images in every process, or None for a share of the cores.
        cores: Of this machine.

    Raises:
        InputError: For an unknown name, an address without Ray, or a Ray that cannot be used.
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
    return ThisProcess(get_backend, workers or cores)


class ThisProcess:
    """All work in this process, on one device."""

    def __init__(self, get_backend: Callable[[], Backend], workers: int) -> None:
        self.get_backend = get_backend
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
        yield work.load(self.get_backend(), self.workers)(pieces, then, on_images)
