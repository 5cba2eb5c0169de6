"""New objects put into old clusters (`fastcomus assign`), against clustering everything again.

    python bench/new_objects.py --planted ../shared/reference/planted.py
    python bench/new_objects.py --embeddings quality-run/objects/part-*.parquet --k 14

Nine tenths of the rows are clustered and the others assigned. Prints the leave-one-out agreement (the share of
clustered objects that come to their own cluster when they are taken for new ones), the adjusted Rand index of the
assigned labels to those of a clustering of all rows, beside that of the clustered part (what clustering fewer rows
costs by itself), and the seconds of both ways. Means over the seeds; writes the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import inputs
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from fastcomus.backends.choose import select
from fastcomus.clusters.assignment import assign_embeddings, label_by_neighbours
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import AssignConfig, ClusterConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_500, 11_000], help="numbers of planted rows")
    parser.add_argument("--embeddings", type=Path, nargs="*", default=[], help=".npy or Parquet files, one set in all")
    parser.add_argument("--k", type=int, default=0, help="number of clusters of --embeddings")
    parser.add_argument("--seeds", type=int, default=3, help="planted sets per size, and divisions of --embeddings")
    parser.add_argument("--json", type=Path, default=Path("bench/results/new_objects.json"))
    arguments = parser.parse_args()
    numbers: list[dict] = []
    for seed in range(arguments.seeds):
        if arguments.embeddings:
            rows = inputs.load_rows(arguments.embeddings)
            numbers.append({"set": f"{len(rows):,} of one's own", **measure(rows, arguments.k, seed)})
        for size in arguments.sizes if arguments.planted else []:
            rows, _, k = inputs.make_planted_rows(arguments.planted, size, seed)
            numbers.append({"set": f"planted {size:,}", **measure(rows, k, seed)})
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console().print(build_table(numbers))


def measure(rows: np.ndarray, k: int, seed: int) -> dict:
    config, backend = ClusterConfig(k=k), select("cpu")
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    known, new = np.split(rows, [len(rows) * 9 // 10])
    started = time.perf_counter()
    full = cluster_embeddings(rows, config, seed, backend).clusters.labels
    clustered = time.perf_counter()
    part = cluster_embeddings(known, config, seed, backend)
    begun = time.perf_counter()
    outliers = AssignConfig().outliers
    assigned = assign_embeddings(new, known, part.clusters, part.maps, config, outliers, seed, backend)
    ended = time.perf_counter()
    near = backend.find_neighbors(known, config.n_neighbors, 1.0, seed).indices[:, 1:]
    alone, _ = label_by_neighbours(known, near, part.clusters, part.maps, config)
    return {
        "leave_one_out_agreement": float((alone == part.clusters.labels).mean()),
        "ari_of_assigned": adjusted_rand_score(full[len(known) :], assigned.labels),
        "ari_of_clustered_part": adjusted_rand_score(full[: len(known)], part.clusters.labels),
        "outliers": float(assigned.is_outlier.mean()),
        "assign_s": ended - begun,
        "cluster_again_s": clustered - started,
    }


def build_table(numbers: list[dict]) -> Table:
    names = [name for name in numbers[0] if name != "set"]
    made = Table("set", *(name.replace("_", " ") for name in names), title="New objects, means over the seeds")
    for group in dict.fromkeys(row["set"] for row in numbers):
        rows = [row for row in numbers if row["set"] == group]
        made.add_row(group, *(f"{statistics.mean(row[name] for row in rows):.3f}" for name in names))
    return made


if __name__ == "__main__":
    main()
