"""Memory of every stage: bytes per object, from its peaks at three sizes.

    python bench/scale.py --planted ../shared/reference/planted.py
    python bench/scale.py --planted ../shared/reference/planted.py --stages graph eigenmaps --shrink 10
    python bench/scale.py --page docs/scale.md        # write the table of the page anew from the JSON

Every measurement runs in a process of its own, with one thread. It first does the stage on a small folder, so that
libraries and networks are loaded and buffers have their size; then the peak of its resident memory is set back (Linux),
the stage runs on the folder of the wanted size, and the peak less what was held before counts. Bytes per object are the
slope of a line through the three peaks; the slopes between two sizes stand beside it: where the second is the larger,
the stage may grow faster than linearly. Results are added to the JSON, stage by stage.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measurement import describe_machine, write_numbers
from rich.console import Console
from rich.table import Table

TABLE_START, TABLE_END = "<!-- bench/scale.py -->", "<!-- end -->"


def main() -> None:
    import torch
    from scale_stages import STAGES

    torch.set_num_threads(1)  # before anything is forked
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES), metavar="STAGE")
    parser.add_argument("--shrink", type=int, default=1, help="divide all sizes by this")
    parser.add_argument("--scratch", type=Path, help="folder for what the stages work on")
    parser.add_argument("--page", type=Path, help="only write the table of this page anew")
    parser.add_argument("--json", type=Path, default=Path("bench/results/scale.json"))
    arguments = parser.parse_args()
    if arguments.planted:
        os.environ["FASTCOMUS_PLANTED"] = str(arguments.planted.resolve())
    numbers = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for group in [] if arguments.page else group_stages(arguments.stages):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            sizes = [size // arguments.shrink for size in STAGES[group[0]].sizes]
            for stage, row in measure_stages(group, sizes, Path(scratch)):
                about = describe_machine("cpu", "pyarrow", "faiss-cpu")
                numbers[stage] = {**row, "per": STAGES[stage].per, "machine": about}
                write_numbers(arguments.json, numbers)
                Console(stderr=True).print(stage, row)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        arguments.page.write_text(with_table(text, format_page_table(numbers)), encoding="utf-8")
    table = Table("stage", "sizes", "peaks, MB", "bytes each", "between sizes")
    for stage, row in numbers.items():
        table.add_row(stage, *_format_cells(row))
    Console(width=120).print(table)


def group_stages(stages: list[str]) -> list[list[str]]:
    """`stages`, those of the clustering core together: each takes what the one before it left."""
    from scale_stages import ROW_STAGES

    return [list(ROW_STAGES)] * any(one in ROW_STAGES for one in stages) + [[s] for s in stages if s not in ROW_STAGES]


def measure_stages(stages: list[str], sizes: list[int], scratch: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each of `stages`, which work on the same folders one after the other: peaks in bytes by size, and what
    follows."""
    from scale_stages import STAGES

    folders = {size: scratch / str(size) for size in sizes}
    small = scratch / "small"
    for size, folder in {max(min(sizes) // 8, min(300, min(sizes) // 2)): small, **folders}.items():
        run_apart(prepare_folder, STAGES[stages[0]].prepare, folder, size)
    for stage in stages:
        work = STAGES[stage].work
        yield (
            stage,
            summarise_peaks({size: run_apart(measure_peak, work, small, folder) for size, folder in folders.items()}),
        )


def summarise_peaks(peaks: dict[int, int]) -> dict[str, Any]:
    """`peaks`: bytes by number of objects, ascending."""
    sizes, values = np.array(list(peaks)), np.array(list(peaks.values()), float)
    slope, constant = np.polyfit(sizes, values, 1)
    parts = np.diff(values) / np.diff(sizes)
    return {
        "sizes": sizes.tolist(),
        "peak_bytes": values.astype(int).tolist(),
        "bytes_each": round(float(slope)),
        "bytes_each_by_part": [round(float(part)) for part in parts],
        "constant_bytes": round(float(constant)),
    }


def format_page_table(numbers: dict[str, Any]) -> str:
    """The table of docs/scale.md in Markdown."""
    lines = ["| stage | sizes | peaks, MB | bytes each | between sizes |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {stage} | {' | '.join(_format_cells(row))} |" for stage, row in numbers.items())])


def with_table(text: str, table: str) -> str:
    """`text` with `table` between the two marks."""
    before, _, rest = text.partition(TABLE_START)
    _, mark, after = rest.partition(TABLE_END)
    assert mark, f"the page lacks {TABLE_START} or {TABLE_END}"
    return f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}"


def _format_cells(row: dict[str, Any]) -> list[str]:
    def joined(values: list[float]) -> str:
        return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" for value in values)

    sizes = f"{joined(row['sizes'])} {row['per']}s"
    peaks = joined([value / 1e6 for value in row["peak_bytes"]])
    return [sizes, peaks, f"{row['bytes_each']:,}", joined(row["bytes_each_by_part"])]


def run_apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns, computed in a process of its own, which is forked from this one: its libraries are there."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work(*arguments)))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        raise SystemExit("a measurement failed; what it said stands above") from None
    process.join()
    return result


def prepare_folder(prepare: Callable[[Path, int], object], folder: Path, size: int) -> None:
    prepare(folder, size)


def measure_peak(work: Callable[[Path], object], small: Path, folder: Path) -> int:
    """Bytes that `work` takes at its height on `folder`, beyond what is held after it worked on `small`."""
    with tempfile.TemporaryDirectory(dir=small.parent) as fresh:  # where nothing is up to date
        work(Path(shutil.copytree(small, Path(fresh) / "small")))
    gc.collect()
    before = _read_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work(folder)
    return _read_memory("VmHWM") - before


def _read_memory(name: str) -> int:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


if __name__ == "__main__":
    main()
