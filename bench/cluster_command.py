"""The command `cluster` against the recipe that people use: whole processes, from their start to files on disk.

    python -m bench.cluster_command --planted ../shared/reference/planted.py

The recipe is a script: scikit-learn's `kneighbors_graph` + `spectral_embedding` (by `lobpcg`, or `arpack`, its default)
+ `k_means`. All sides take their turns one after the other, on the same rows. Of each: seconds by the clock and of the
processor, medians of the turns; the adjusted Rand index to the planted classes; and how many times sooner the command
is. Stage by stage: bench/clustering.py.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import adjusted_rand_score

from bench import harness

SIDES = ("fastcomus", "lobpcg", "arpack")
RECIPE = """
import sys
import numpy as np
from sklearn.cluster import k_means
from sklearn.manifold import spectral_embedding
from sklearn.neighbors import kneighbors_graph

rows, k, solver = np.load(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
directed = kneighbors_graph(rows, 30, include_self=True)
affinity = 0.5 * (directed + directed.T)
maps = spectral_embedding(affinity, n_components=k, eigen_solver=solver, random_state=0, drop_first=False)
np.save(sys.argv[4], k_means(maps, k, random_state=0, n_init=10)[1])
"""


def main() -> None:
    parser = harness.make_parser(__doc__, "cluster_command", repeats=3)
    harness.add_row_options(parser, [30_000])
    harness.add_side_options(parser, SIDES[:2])
    arguments = parser.parse_args()
    rows: list[harness.Row] = []
    for given in harness.iterate_inputs(arguments):
        turns = [{side: run_side(side, given) for side in arguments.sides} for _ in range(arguments.repeats)]
        same = [
            {
                "input": given.name,
                "seed": given.seed,
                "side": side,
                **{name: statistics.median(turn[side][name] for turn in turns) for name in turns[0][side]},
                "turns_s": [turn[side]["wall_s"] for turn in turns],
            }
            for side in arguments.sides
        ]
        for row in same:
            row["ratio"] = row["wall_s"] / same[0]["wall_s"]
        rows += same
    harness.finish(arguments, "Whole processes", {"rows": rows}, "scipy", "scikit-learn", "numba")


def run_side(side: str, given: harness.Input) -> harness.Row:
    """Run one process to its end."""
    folder = Path(given.rows).parent
    run, labels = folder / "run", folder / "labels.npy"
    shutil.rmtree(run, ignore_errors=True)
    if side == "fastcomus":
        line = ["-m", "fastcomus", "cluster", "--embeddings", given.rows, "--k", str(given.k), "--run", str(run)]
    else:
        line = ["-c", RECIPE, given.rows, str(given.k), side, str(labels)]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *line], env={**os.environ, "FASTCOMUS_OFFLINE": "1"}, capture_output=True, check=True
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    found = np.load(labels) if side != "fastcomus" else read_labels(run)
    row = {
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "ari": adjusted_rand_score(np.load(given.classes), found) if given.classes else float("nan"),
    }
    harness.print_progress({"side": side, **row})
    return row


def read_labels(run: Path) -> np.ndarray:
    return np.asarray(pq.read_table(run / "clusters/clusters.parquet", columns=["cluster"])["cluster"])


if __name__ == "__main__":
    main()
