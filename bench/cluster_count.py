"""How often each criterion finds the right number of clusters: planted sets, and embeddings of your own.

    python bench/cluster_count.py --planted ../shared/reference/planted.py
    python bench/cluster_count.py --embeddings quality-run/objects/part-*.parquet --k 14

Prints the number that each criterion finds beside the true one, the mean of |ln(found / true)| over the sets, and how
often it is right within a tenth. Writes the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import inputs
import numpy as np
from rich.console import Console
from rich.table import Table

from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import COUNT_CRITERIA, ClusterConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_500, 11_000, 30_000], help="numbers of planted rows")
    parser.add_argument("--seeds", type=int, default=2, help="planted sets per size")
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[], help=".npy or Parquet files, one set in all")
    parser.add_argument("--k", type=int, default=0, help="true number of clusters of --embeddings")
    parser.add_argument("--max-k", type=int, default=160, help="most clusters that modularity and eigengap look at")
    parser.add_argument("--json", type=Path, default=Path("bench/results/cluster_count.json"))
    arguments = parser.parse_args()
    logging.getLogger("fastcomus").setLevel(logging.ERROR)
    numbers = [measure(name, rows, k, arguments.max_k) for name, rows, k in _iterate_sets(arguments)]
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console().print(build_table(numbers))


def measure(name: str, rows: np.ndarray, k: int, max_k: int) -> dict:
    """The number of clusters by every criterion, and the seconds that graph, criterion and clustering took."""
    measured: dict = {"set": name, "k": k}
    for criterion in COUNT_CRITERIA:
        started = time.perf_counter()
        config = ClusterConfig(choose_k=criterion, max_k=max_k)
        measured[criterion] = len(cluster_embeddings(rows, config, 0, select("cpu")).clusters.sizes)
        measured[f"{criterion}_s"] = time.perf_counter() - started
    return measured


def build_table(numbers: list[dict]) -> Table:
    made = Table("set", "true", *COUNT_CRITERIA, title="Number of clusters found")
    for row in numbers:
        made.add_row(row["set"], str(row["k"]), *(f"{row[c]} ({row[f'{c}_s']:.1f} s)" for c in COUNT_CRITERIA))
    errors = {c: [abs(math.log(row[c] / row["k"])) for row in numbers] for c in COUNT_CRITERIA}
    made.add_section()
    made.add_row("mean |ln(found / true)|", "", *(f"{statistics.mean(errors[c]):.2f}" for c in COUNT_CRITERIA))
    right = {c: sum(abs(row[c] - row["k"]) <= 0.1 * row["k"] for row in numbers) for c in COUNT_CRITERIA}
    made.add_row("right within a tenth", "", *(f"{right[c]} of {len(numbers)}" for c in COUNT_CRITERIA))
    return made


def _iterate_sets(arguments: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, int]]:
    if arguments.embeddings:
        rows = inputs.load_rows(arguments.embeddings)
        yield f"{len(rows):,} of one's own", rows, arguments.k
    for size in arguments.sizes if arguments.planted else []:
        for seed in range(arguments.seeds):
            rows, _, k = inputs.make_planted_rows(arguments.planted, size, seed)
            yield f"planted {size:,}, seed {seed}", rows, k


if __name__ == "__main__":
    main()
