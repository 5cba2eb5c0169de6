"""Memory of every stage: bytes per object, from its peaks at three sizes.

    python -m bench.scale --planted ../shared/reference/planted.py
    python -m bench.scale --planted ../shared/reference/planted.py --stages graph eigenmaps --shrink 10
    python -m bench.scale --page docs/scale.md        # write the table of the page anew from the JSON

Every measurement runs in a process of its own, with one thread. It first does the stage on a small folder, so that
libraries and networks are loaded and buffers have their size; then the peak of its resident memory is set back (Linux),
the stage runs on the folder of the wanted size, and the peak less what was held before counts. Bytes per object are the
slope of a line through the three peaks; the slopes between two sizes stand beside it: where the second is the larger,
the stage may grow faster than linearly. Results are added to the JSON, stage by stage.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from bench import harness
from bench.harness import run_apart
from bench.scale_stages import ROW_STAGES, STAGES

TABLE_START, TABLE_END = "<!-- bench/scale.py -->", "<!-- end -->"
COLUMNS = ("stage", "sizes", "peaks, MB", "bytes each", "between sizes")


def main() -> None:
    torch.set_num_threads(1)  # before anything is forked
    parser = harness.make_parser(__doc__, "scale")
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES), metavar="STAGE")
    parser.add_argument("--shrink", type=int, default=1, help="divide all sizes by this")
    parser.add_argument("--scratch", type=Path, help="folder for what the stages work on")
    parser.add_argument("--page", type=Path, help="only write the table of this page anew")
    arguments = parser.parse_args()
    if arguments.planted:
        os.environ["FASTCOMUS_PLANTED"] = str(arguments.planted.resolve())
    numbers = harness.read_json(arguments.json)
    for group in [] if arguments.page else group_stages(arguments.stages):
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            sizes = [size // arguments.shrink for size in STAGES[group[0]].sizes]
            for stage, row in measure_stages(group, sizes, Path(scratch)):
                about = harness.describe_run("cpu", "pyarrow", "faiss-cpu")
                numbers[stage] = {**row, "per": STAGES[stage].per, "machine": about}
                harness.write_json(arguments.json, numbers)
                harness.print_progress(stage, row)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        arguments.page.write_text(with_table(text, format_page_table(numbers)), encoding="utf-8")
    rows = [dict(zip(COLUMNS, _format_cells(stage, row), strict=True)) for stage, row in numbers.items()]
    harness.print_table("Memory", rows)


def group_stages(stages: list[str]) -> list[list[str]]:
    """`stages`, those of the clustering core together: each takes what the one before it left."""
    return [list(ROW_STAGES)] * any(one in ROW_STAGES for one in stages) + [[s] for s in stages if s not in ROW_STAGES]


def measure_stages(stages: list[str], sizes: list[int], scratch: Path) -> Iterator[tuple[str, harness.Row]]:
    """For each of `stages`, which work on the same folders in turn: peaks in bytes by size, and what follows."""
    folders = {size: scratch / str(size) for size in sizes}
    small = scratch / "small"
    for size, folder in {max(min(sizes) // 8, min(300, min(sizes) // 2)): small, **folders}.items():
        run_apart(prepare, stages[0], folder, size, fork=True)
    for stage in stages:
        work = STAGES[stage].work
        peaks = {size: run_apart(measure_peak, work, small, folder, fork=True) for size, folder in folders.items()}
        if stage != stages[-1]:  # the next one takes what this one leaves, also where it warms up
            run_apart(leave_results, work, small, fork=True)
        yield stage, summarise_peaks(peaks)


def prepare(stage: str, folder: Path, size: int) -> None:
    STAGES[stage].prepare(folder, size)  # what it returns stays where it was made


def summarise_peaks(peaks: dict[int, int]) -> harness.Row:
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


def format_page_table(numbers: harness.Row) -> str:
    """The table of docs/scale.md in Markdown."""
    lines = [COLUMNS, *(_format_cells(stage, row) for stage, row in numbers.items())]
    heading, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([heading, "|---" * len(COLUMNS) + "|", *rest])


def with_table(text: str, table: str) -> str:
    """`text` with `table` between the two marks."""
    before, _, rest = text.partition(TABLE_START)
    _, mark, after = rest.partition(TABLE_END)
    assert mark, f"the page lacks {TABLE_START} or {TABLE_END}"
    return f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}"


def _format_cells(stage: str, row: harness.Row) -> list[str]:
    def join(values: list[float]) -> str:
        return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" for value in values)

    peaks = join([value / 1e6 for value in row["peak_bytes"]])
    slopes = [f"{row['bytes_each']:,}", join(row["bytes_each_by_part"])]
    return [stage, f"{join(row['sizes'])} {row['per']}s", peaks, *slopes]


def leave_results(work: Callable[[Path], object], folder: Path) -> None:
    work(folder)  # what it returns stays where it was made


def measure_peak(work: Callable[[Path], object], small: Path, folder: Path) -> int:
    """Bytes that `work` takes at its height on `folder`, beyond what is held after it worked on `small`."""
    with tempfile.TemporaryDirectory(dir=small.parent) as fresh:  # where nothing is up to date
        copied = Path(shutil.copytree(small, Path(fresh) / "small"))
        return harness.measure_extra_peak(lambda: work(copied), lambda: work(folder))


if __name__ == "__main__":
    main()
