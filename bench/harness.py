"""What all benchmarks share: options, inputs, clocks, processes of their own, JSON and tables."""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "data": (Path, "folder of photographs"),
    "device": (str, "auto, cpu, cuda or cuda:N"),
    "seed": (int, "seed of everything random"),
    "repeats": (int, "turns of each side, after one to warm up"),
    "count": (int, "images to use"),
    "workers": (int, "threads that read and write files"),
    "threads": (int, "threads that compute"),
}
Row = dict[str, Any]

# -- options and inputs ----------------------------------------------------------------------------------------------


def make_parser(doc: str | None, name: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with `--json` and those of `OPTIONS` that have a default here; None makes an option required."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in defaults.items():
        kind, text = OPTIONS[option]
        parser.add_argument(f"--{option}", type=kind, default=default, required=default is None, help=text)
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where the numbers go")
    return parser


def add_row_options(parser: argparse.ArgumentParser, sizes: Sequence[int], seeds: int = 1) -> None:
    """Which rows are clustered: planted ones of several sizes, or embeddings from files."""
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(sizes), help="numbers of planted rows")
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[], help=".npy or Parquet files, one set in all")
    parser.add_argument("--k", type=int, default=0, help="number of clusters of --embeddings")
    parser.add_argument("--seeds", type=int, default=seeds, help="planted sets per size, and seeds of what is random")


def add_side_options(parser: argparse.ArgumentParser, sides: Iterable[str]) -> None:
    """Which sides run, each in a process of its own, and for how long at most."""
    parser.add_argument("--sides", nargs="*", default=list(sides), choices=list(sides))
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a side is given up")


class Input(NamedTuple):
    """Rows to cluster: `rows` and `classes` are .npy files; `classes` is empty where they are not known."""

    name: str
    rows: str
    classes: str
    k: int
    seed: int


def iterate_inputs(arguments: argparse.Namespace) -> Iterator[Input]:
    """Every input that the options of `add_row_options` ask for; its files are gone with the next one."""
    from fastcomus.store.embeddings import check_embeddings, read_embeddings

    with tempfile.TemporaryDirectory() as scratch:
        rows, classes = Path(scratch, "rows.npy"), Path(scratch, "classes.npy")
        if arguments.embeddings:
            own = check_embeddings(np.concatenate([read_embeddings(file)[0] for file in arguments.embeddings]))
            np.save(rows, own)
            for seed in range(arguments.seeds):
                yield Input(f"{len(own):,} of one's own", str(rows), "", arguments.k, seed)
        for size in arguments.sizes if arguments.planted else []:
            for seed in range(arguments.seeds):
                made, true, k = make_planted_rows(arguments.planted, size, seed)
                np.save(rows, made)
                np.save(classes, true)
                del made
                yield Input(f"planted {size:,}, k {k}", str(rows), str(classes), k, seed)


def iterate_sides(
    arguments: argparse.Namespace, measure: Callable[..., Row], prepare: Callable[[Input], object], *given: Any
) -> Iterator[list[Row]]:
    """For every input, prepared, a row of each of `--sides`: `measure(side, input, *given)` in a process of its own."""
    limits = {"threads": arguments.threads, "limit_s": arguments.limit}
    for one in iterate_inputs(arguments):
        prepare(one)
        rows = []
        for side in arguments.sides:
            found = run_apart(measure, side, one, *given, **limits)
            rows.append({"input": one.name, "seed": one.seed, "side": side, **found})
            print_progress({name: value for name, value in rows[-1].items() if np.ndim(value) == 0})
        yield rows


def make_planted_rows(file: Path, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Planted rows (size, D), their classes (size,) and the number of classes, by `SEPARATION` of `file`.

    Sizes without a separation of their own are as hard as the nearest that has one.
    """
    module = load_file(file)
    nearest = min(module.SEPARATION, key=lambda known: abs(np.log(known[0] / size)))
    k = nearest[1]
    return *module.planted(size, k, module.SEPARATION[nearest], seed=seed), k


def load_file(file: Path) -> ModuleType:
    """The module that a Python file outside of the package holds."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def link_images(images: Iterable[Path], folder: Path) -> Path:
    """A folder of links to the images; one that is there stays, so that a run on it goes on."""
    if not folder.exists():
        making = folder.with_name(f"{folder.name}.new")
        making.mkdir(parents=True, exist_ok=True)
        for image in images:
            link = making / image.name
            if not link.is_symlink():
                link.symlink_to(image.resolve())
        making.rename(folder)
    return folder


def select_device(name: str) -> str:
    """What `--device` says, with "auto" resolved; InputError where it is not there."""
    from fastcomus.backends.choose import select

    return str(select(name).device)


# -- clocks ----------------------------------------------------------------------------------------------------------


@dataclass
class Times:
    """Seconds of every turn of a side; `result` is that of its last turn."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def median_s(self) -> float:
        return statistics.median(self.wall_s)


def time_once(work: Callable[..., Any], *given: Any, device: str = "cpu") -> Times:
    """One turn, without warming up; on a CUDA device the clock stops when the device has ended."""
    _wait(device)
    cpu, wall = time.process_time(), time.perf_counter()
    result = work(*given)
    _wait(device)
    return Times([time.perf_counter() - wall], [time.process_time() - cpu], result)


def time_sides(
    sides: Mapping[str, Callable[..., Any]],
    repeats: int,
    device: str = "cpu",
    prepare: Callable[[str], Any] | None = None,
) -> dict[str, Times]:
    """Let all sides take turns, after one to warm up, so that other load on the machine meets all of them.

    What `prepare` makes for a side, off the clock, is handed to it.
    """
    times = {name: Times() for name in sides}
    for turn in range(-1, repeats):
        for name, side in sides.items():
            given = [prepare(name)] if prepare else []
            once = time_once(side, *given, device=device)
            times[name].result = once.result
            if turn >= 0:
                times[name].wall_s += once.wall_s
                times[name].cpu_s += once.cpu_s
    return times


def summarise(values: Iterable[float]) -> dict[str, float]:
    """Median, least and most."""
    listed = list(values)
    return {"median": statistics.median(listed), "least": min(listed), "most": max(listed)}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


# -- processes and memory --------------------------------------------------------------------------------------------


def run_apart(work: Callable[..., Any], *given: Any, threads: int = 0, limit_s: float = 0, fork: bool = False) -> Any:
    """What `work` returns in a process of its own, with so many threads if given.

    Where `limit_s` is given, {"gave_up": why} stands for one that failed or took longer; else a failure ends all.
    A forked process has this one's libraries loaded; any other starts empty.
    """
    context = multiprocessing.get_context("fork" if fork else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, work, given, not limit_s))
    before = dict(os.environ)
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, str(threads)) if threads else {})
    try:
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    sender.close()
    try:
        answer = receiver.recv() if receiver.poll(limit_s or None) else {"gave_up": f"over {limit_s:.0f} s"}
    except EOFError:
        answer = {"gave_up": "the process was lost"}
    if process.is_alive() and isinstance(answer, dict) and "gave_up" in answer:
        process.kill()
    process.join()
    if not limit_s and isinstance(answer, dict) and "gave_up" in answer:
        raise SystemExit(f"a measurement failed: {answer['gave_up']}")
    return answer


def _answer(sender: Any, work: Callable[..., Any], given: Sequence[Any], is_told: bool) -> None:
    try:
        answer = work(*given)
    except (Exception, SystemExit) as error:
        if is_told:
            traceback.print_exc()
        answer = {"gave_up": (str(error).strip().splitlines() or [repr(error)])[0][:80]}
    sender.send(answer)


def measure_peak_mib() -> float:
    """The most memory that this process has had."""
    if Path("/proc/self/status").exists():  # getrusage's would begin with what the parent held
        return read_memory("VmHWM") / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure_extra_peak(warm_up: Callable[[], object], work: Callable[[], object]) -> int:
    """Bytes that `work` takes at its height beyond what is held after `warm_up`; Linux only."""
    warm_up()
    gc.collect()
    before = read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work()
    return read_memory("VmHWM") - before


def read_memory(name: str) -> int:
    """Bytes of this process by the name that Linux has for them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


# -- results ---------------------------------------------------------------------------------------------------------


def describe_run(device: str = "cpu", *packages: str) -> Row:
    """Command, hardware, threads, and versions of Python, torch, NumPy and those of `packages` that are here."""
    import torch

    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", *packages):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    main = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"-m {main.name.removesuffix('.__main__')}" if main else sys.argv[0]
    return {
        "command": " ".join(["python", program, *sys.argv[1:]]),
        "hardware": _describe_hardware(device),
        "threads": torch.get_num_threads(),
        "versions": found,
    }


def _describe_hardware(device: str) -> str:
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = (line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    return f"{name}, {os.cpu_count()} cores"


def read_json(file: Path) -> Row:
    """What was measured before; nothing where the file is not there."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def write_json(file: Path, numbers: Row) -> None:
    """`numbers` as a file, whole at any moment; those that do not describe their parts begin with `describe_run()`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    beside.replace(file)


def finish(
    arguments: argparse.Namespace, title: str, numbers: Row, *packages: str, shown: Sequence[Row] | None = None
) -> None:
    """Write `numbers`, behind what describes the run, to `--json`, and print a table.

    The table has `shown`, else `numbers["rows"]`, else a row for each of the numbers.
    """
    about = describe_run(select_device(getattr(arguments, "device", "cpu")), *packages)
    about["threads"] = getattr(arguments, "threads", about["threads"])
    write_json(arguments.json, {**about, **numbers})
    each = [{"what": name, **(one if isinstance(one, dict) else {"value": one})} for name, one in numbers.items()]
    print_table(f"{title}; {about['hardware']}, threads: {about['threads']}", shown or numbers.get("rows", each))


def print_progress(*what: object) -> None:
    """A line on standard error."""
    Console(stderr=True).print(*what)


def print_table(title: str, rows: Iterable[Row]) -> None:
    """A line per row, a column for every name of a text or number in them; lists are left out."""
    rows = [{name: one for name, one in row.items() if isinstance(one, str | int | float)} for row in rows]
    table, names = Table(title=title), list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        is_text = any(isinstance(row.get(name), str) for row in rows)
        table.add_column(name.replace("_", " "), justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(_format_cell(row.get(name, "-")) for name in names))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _format_cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def average_rows(rows: Sequence[Row], *keys: str) -> list[Row]:
    """One row for those that have the same `keys`: means of their numbers."""
    import pandas as pd

    means = pd.DataFrame(rows).groupby(list(keys), sort=False).mean(numeric_only=True).reset_index()
    return [{str(name): value for name, value in row.items()} for row in means.to_dict("records")]
