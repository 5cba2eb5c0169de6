"""How soon commands end that only look, refuse, or cluster: whole processes, with and without PYTHONDONTWRITEBYTECODE.

    python -m bench.startup

Processor seconds (user and system) and seconds by the clock of `python -m fastcomus ...`, the least of several turns,
in a run folder with clusters of made rows.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import harness

LINES = {
    "--help": "--help",
    "name": "name --run {run}",
    "weights list": "weights list",
    "history": "history --run {run}",
    "embed, a wrong path": "embed {gone} --run {new}",
    "embed, a wrong option": "embed . --theta 7 --run {new}",
    "predict, no network there": "predict . --run {run}",
}


def main() -> None:
    arguments = harness.make_parser(__doc__, "startup", repeats=3).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "rows.npy", np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32))
        places = {"run": folder / "run", "gone": folder / "gone", "new": folder / "new"}
        start(f"cluster --embeddings {folder}/rows.npy --k 5 --run {folder}/run", {})
        for name, line in LINES.items():
            for variable in ("", "1"):
                environment = {"PYTHONDONTWRITEBYTECODE": variable} if variable else {}
                taken = [start(line.format(**places), environment) for _ in range(arguments.repeats + 1)][1:]
                least = {"cpu_s": min(cpu for cpu, _ in taken), "wall_s": min(wall for _, wall in taken)}
                rows.append({"command": name, "dont_write_bytecode": bool(variable), **least})
                harness.print_progress(rows[-1])
    harness.finish(arguments, "Starting", {"rows": rows})


def start(line: str, environment: dict[str, str]) -> tuple[float, float]:
    """Run one command to its end; processor seconds, and seconds by the clock."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "fastcomus", *line.split()]
    given = {**inherited, "FASTCOMUS_OFFLINE": "1", **environment}
    subprocess.run(command, env=given, capture_output=True, check=False, timeout=600)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    main()
