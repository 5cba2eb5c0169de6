"""Memory of every stage: bytes per object, from its peaks at three sizes.

    python bench/scale.py --planted ../shared/reference/planted.py
    python bench/scale.py --planted ../shared/reference/planted.py --stages graph eigenmaps --shrink 10
    python bench/scale.py --page docs/scale.md        # write the table of the page anew from the JSON

Every measurement runs in a process of its own. It first does the stage on a small folder, so that libraries and
networks are loaded and buffers have their size; then the peak of its resident memory is set back (Linux), the stage
runs on the folder of the wanted size, and the peak less what was held before counts. Bytes per object are the slope of
a line through the three peaks; the steepest part between two sizes stands beside it: a stage that grew faster than
linearly would have a steeper second part. Results are added to the JSON, stage by stage.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

TABLE_START, TABLE_END = "<!-- bench/scale.py -->", "<!-- end -->"


def main() -> None:
    from scale_stages import STAGES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES), metavar="STAGE")
    parser.add_argument("--shrink", type=int, default=1, help="divide all sizes by this")
    parser.add_argument("--scratch", type=Path, help="folder for what the stages work on")
    parser.add_argument("--page", type=Path, help="only write the table of this page anew")
    parser.add_argument("--json", type=Path, default=Path("bench/results/scale.json"))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # prepare or measure, in a process of its own
    arguments = parser.parse_args()
    if arguments.one:
        _one(*arguments.one)
        return
    if arguments.planted:
        os.environ["FASTCOMUS_PLANTED"] = str(arguments.planted.resolve())
    if not arguments.page:
        for stage in arguments.stages:
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
                row = measured(stage, [size // arguments.shrink for size in STAGES[stage].sizes], Path(scratch))
            stored = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
            stored[stage] = {**row, "per": STAGES[stage].per, "machine": _machine()}
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(stored, indent=2) + "\n")
            Console(stderr=True).print(stage, row)
    numbers = json.loads(arguments.json.read_text())
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        arguments.page.write_text(with_table(text, page_table(numbers)), encoding="utf-8")
    table = Table("stage", "sizes", "peaks, MB", "bytes each", "steepest")
    for stage, row in numbers.items():
        table.add_row(stage, *_cells(row))
    Console(width=120).print(table)


def measured(stage: str, sizes: list[int], scratch: Path) -> dict[str, Any]:
    """Peaks in bytes by size, and the bytes per object that follow."""
    from scale_stages import ROW_STAGES

    folders = {size: scratch / str(size) for size in sizes}
    small = max(64, min(sizes) // 8)
    for size, folder in {small: scratch / "small", **folders}.items():
        _in_process("prepare", stage, str(folder), str(size))
        for earlier in ROW_STAGES[: ROW_STAGES.index(stage)] if stage in ROW_STAGES else ():
            _in_process("work", earlier, str(folder), "")
    peaks = {}
    for size, folder in folders.items():
        peaks[size] = json.loads(_in_process("measure", stage, str(folder), str(scratch / "small")))
        shutil.rmtree(folder)
    return summary(peaks)


def summary(peaks: dict[int, int]) -> dict[str, Any]:
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


def page_table(numbers: dict[str, Any]) -> str:
    """The table of docs/scale.md in Markdown."""
    lines = ["| stage | sizes | peaks, MB | bytes each | steepest part |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {stage} | {' | '.join(_cells(row))} |" for stage, row in numbers.items())])


def with_table(text: str, table: str) -> str:
    """`text` with `table` between the two marks."""
    before, _, rest = text.partition(TABLE_START)
    _, mark, after = rest.partition(TABLE_END)
    assert mark, f"the page lacks {TABLE_START} or {TABLE_END}"
    return f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}"


def _cells(row: dict[str, Any]) -> list[str]:
    def joined(values: list[float]) -> str:
        return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" for value in values)

    sizes = f"{joined(row['sizes'])} {row['per']}s"
    peaks = joined([value / 1e6 for value in row["peak_bytes"]])
    return [sizes, peaks, f"{row['bytes_each']:,}", f"{max(row['bytes_each_by_part']):,}"]


def _in_process(*what: str) -> str:
    line = [sys.executable, __file__, "--one", *what]
    reply = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "FASTCOMUS_OFFLINE": "1"})
    if reply.returncode:
        raise SystemExit(f"{' '.join(what)} failed:\n{reply.stderr[-3000:]}")
    return reply.stdout.splitlines()[-1] if reply.stdout.strip() else ""


def _one(what: str, stage: str, folder: str, last: str) -> None:
    """prepare FOLDER SIZE, work FOLDER, or measure FOLDER after a warm-up on the folder SMALL."""
    from scale_stages import STAGES

    if what == "prepare":
        STAGES[stage].prepare(Path(folder), int(last))
    elif what == "work":
        STAGES[stage].work(Path(folder))
    else:
        STAGES[stage].work(Path(last))
        gc.collect()
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        STAGES[stage].work(Path(folder))
        print(_memory("VmHWM") - before)


def _memory(name: str) -> int:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) * 1024


def _machine() -> str:
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pyarrow"))
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {libraries}"


if __name__ == "__main__":
    main()
