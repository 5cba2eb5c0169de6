"""Run the per-image stages on Ray Data: actors hold the networks, and results stream to this process.

Without an address of a cluster, Ray is started on this machine; it then accepts local connections only, sends no usage
statistics and is removed when the work ends.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcomus.backends import choose
from fastcomus.backends.read_ahead import take_decoded_counts
from fastcomus.errors import InputError, get_first_line
from fastcomus.progress import count_decoded
from fastcomus.run.engines.work import Piece, Result, Stored, Work, make_portable, run_piece

log = logging.getLogger("fastcomus")

_CORES = 4  # of an actor without a GPU; one network uses several cores well
_RETRIES = 3  # of an actor that was lost, and of its piece; Ray's default has no limit
_CONNECT_S = 5.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # send no usage statistics
    "RAY_DATA_USAGE_DISABLED": "1",  # nor those of Ray Data
    "RAY_ENABLE_AUTO_CONNECT": "0",  # only `_start_ray` starts Ray
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors reach this process as exceptions
}
_ALONE = {  # for a Ray that is started on this machine
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # accept local connections only, on Linux too
    "RAY_worker_niceness": "0",  # the priority of this process; Ray's default is the lowest
}


@dataclass(frozen=True)
class Share:
    """How many actors there are, how many cores each of them has, and whether each has a GPU."""

    actors: int
    cores: int
    gpu: bool


def make_ray_engine(address: str, device: str, workers: int | None) -> OnRay:
    """Return the engine; Ray is not started yet.

    Args:
        address: "auto" or "HOST:PORT" of a cluster, "local", or "" for RAY_ADDRESS. Without any of them Ray is started
            on this machine.
        device: "auto" (GPUs if the cluster has any), "cpu" or "cuda".
        workers: Cores of an actor, or None for a suitable number.

    Raises:
        InputError: Without the package ray, for another device, or where no cluster answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError('--engine ray needs Ray; run pip install "ray[data]".')
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"with --engine ray, --device must be auto, cpu or cuda; got {device!r}.")
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address not in ("", "auto", "local"):
        _check_reachable(address)
    return OnRay("" if address == "local" else address, device, workers)


class OnRay:
    """Actors of a Ray cluster, or of a Ray that is started for the work and ends with it."""

    def __init__(self, address: str, device: str, workers: int | None) -> None:
        self.address = address
        self.device = device
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
        with _connect_ray(self.address):
            import ray

            share = plan_share(ray.nodes(), self.device, self.workers, len(pieces))
            log.info("Ray: actors %d, each of cores %d, GPUs %d.", share.actors, share.cores, share.gpu)
            rows = _stream_rows(work, pieces, share)
            try:
                first = next(rows, None)  # comes after networks are loaded
                yield _store_results(first, rows, then, on_images)
            finally:
                with _silence_standard_error():  # Ray prints a line for every cancelled piece
                    rows.close()  # before Ray shuts down; a remaining executor would start Ray again


class _Actor:
    """The callable of Ray's actors. An error is returned as a result, so that it is raised again as it was."""

    def __init__(self, work: Any, share: Share, environment: Mapping[str, str]) -> None:
        self.work = work
        self.share = share
        self.environment = environment
        self.loaded: Any = None
        self.backend: Any = None

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        try:
            if self.loaded is None:
                self.loaded = self._load()
            for piece in batch["item"]:
                for result in run_piece(self.loaded, piece):
                    yield {"result": [result], "decoded": [json.dumps(take_decoded_counts(self.backend))]}
        except Exception as error:
            yield {"result": [make_portable(error)], "decoded": ["{}"]}

    def _load(self) -> Any:
        import torch

        os.environ.update(self.environment)
        root = self.work.root
        if isinstance(root, Path) and not root.exists():
            raise InputError(
                f"the machine {socket.gethostname()} of the Ray cluster has no {root}; images and the run folder must "
                "lie at the same path on all of them, such as on a shared file system."
            )
        torch.set_num_threads(self.share.cores)
        self.backend = choose.select("cuda" if self.share.gpu else "cpu")
        return self.work.load(self.backend, self.share.cores)


def plan_share(nodes: Sequence[Mapping[str, Any]], device: str, workers: int | None, pieces: int) -> Share:
    """Divide the machines of a cluster among actors.

    Args:
        nodes: What `ray.nodes()` returns.
        device: "auto", "cpu" or "cuda".
        workers: Cores of an actor, or None for a suitable number.
        pieces: Number of pieces; there are no more actors than pieces.

    Raises:
        InputError: For "cuda" without a GPU, or where no machine has that many cores.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = [int(one.get("GPU", 0)) for one in machines]
    cores = [int(one.get("CPU", 0)) for one in machines]
    if device == "cuda" and not any(gpus):
        raise InputError("--device cuda was asked for and the Ray cluster has no GPU; use --device auto.")
    if any(gpus) and device != "cpu":
        own = workers or max(1, min(core // gpu for core, gpu in zip(cores, gpus, strict=True) if gpu))
        actors = sum(min(gpu, core // own) for core, gpu in zip(cores, gpus, strict=True))
    else:
        own = workers or max(1, min(_CORES, max(cores)))
        actors = sum(core // own for core in cores)
    if not actors:
        raise InputError(f"no machine of the Ray cluster has the {own} cores of an actor; lower --workers.")
    return Share(min(actors, pieces), own, any(gpus) and device != "cpu")


def _stream_rows(work: Any, pieces: Sequence[Any], share: Share) -> Generator[Any, None, None]:
    """Yield the results of the actors as they come; raise the first error."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    environment = {name: value for name, value in os.environ.items() if name.startswith("FASTCOMUS_")}
    items = ray.data.from_items(list(pieces), override_num_blocks=len(pieces))
    options: dict[str, Any] = {}
    if "ray_remote_args_fn" in inspect.signature(items.map_batches).parameters:  # deprecated without a successor
        options["ray_remote_args_fn"] = lambda: {"max_restarts": _RETRIES, "max_task_retries": _RETRIES}
    with warnings.catch_warnings(action="ignore"):
        made = items.map_batches(
            _Actor,
            fn_constructor_args=(work, share, environment),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=share.actors),
            num_cpus=share.cores,
            num_gpus=1 if share.gpu else 0,
            **options,
        )
    rows: Any = iter(made.iter_rows())
    try:
        for row in rows:
            if isinstance(row["result"], Exception):
                raise row["result"]
            count_decoded(json.loads(row["decoded"]))
            yield row["result"]
    except ray.exceptions.RayError as error:
        raise InputError(
            f"Ray gave up ({_summarise_error(error)}); see to it and start the same command again, it goes on from "
            "here."
        ) from error
    finally:
        rows.close()


def _summarise_error(error: BaseException) -> str:
    """Return one line: the last of an actor's traceback, which names the error, or the first of other texts."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    return lines[-1] if "Traceback" in str(cause) else lines[0]


def _store_results(
    first: Any, rows: Iterator[Any], then: Callable[[Any], Stored], on_images: Callable[[int], None]
) -> Iterator[Stored]:
    while first is not None:
        stored = then(first)
        on_images(first.images)
        yield stored
        first = next(rows, None)


@contextmanager
def _connect_ray(address: str) -> Iterator[None]:
    """Connect to Ray, or start it, for the block; use a connection of the calling program as it is."""
    given = os.environ.copy()
    os.environ.update(_QUIET if address else {**_QUIET, **_ALONE})
    try:
        with tempfile.TemporaryDirectory(prefix="fastcomus-ray-", ignore_cleanup_errors=True) as scratch:
            ray, is_ours = _start_ray(address, scratch)
            try:
                yield
            finally:
                if is_ours:
                    with _silence_standard_error():
                        ray.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(given)


def _start_ray(address: str, scratch: str) -> tuple[Any, bool]:
    """Return the connected module ray, and whether the connection was made here.

    A Ray that is started on this machine keeps its files in the folder `scratch`.
    """
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return ray, False
    own: dict[str, Any] = {} if address else {"include_dashboard": False, "_temp_dir": scratch}
    try:
        with _silence_standard_error():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of many types
        raise InputError(f"Ray at {address or 'this machine'} cannot be used ({get_first_line(error)}).") from error
    return ray, True


@contextmanager
def _silence_standard_error() -> Iterator[None]:
    """Discard standard error in the block, since Ray's C++ code writes there whatever the level of its log."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _check_reachable(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or "/" in host:
        raise InputError(f"--address must be auto or HOST:PORT, as ray start --head shows it; got {address!r}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"no Ray cluster answers at {address} ({reason}); check --address, or start one by ray start --head."
        ) from error
