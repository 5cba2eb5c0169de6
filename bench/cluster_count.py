"""How often each criterion finds the right number of clusters: planted sets, and embeddings of your own.

    python -m bench.cluster_count --planted ../shared/reference/planted.py
    python -m bench.cluster_count --embeddings comus-run/objects/part-*.parquet --k 14

Prints the number that each criterion finds beside the true one, the mean of |ln(found / true)| over the sets, and how
often it is right within a tenth. Seconds are those of graph, criterion and clustering.
"""

from __future__ import annotations

import logging
import math
import statistics

import numpy as np

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import COUNT_CRITERIA, ClusterConfig


def main() -> None:
    parser = harness.make_parser(__doc__, "cluster_count")
    harness.add_row_options(parser, [1_500, 11_000, 30_000], seeds=2)
    parser.add_argument("--max-k", type=int, default=160, help="most clusters that modularity and eigengap look at")
    arguments = parser.parse_args()
    logging.getLogger("fastcomus").setLevel(logging.ERROR)
    rows = []
    for one in harness.iterate_inputs(arguments):
        found = measure(np.load(one.rows), arguments.max_k)
        rows.append({"set": f"{one.name}, seed {one.seed}", "k": one.k, **found})
        harness.print_progress(rows[-1])
    summary = {criterion: summarise_criterion(criterion, rows) for criterion in COUNT_CRITERIA}
    harness.finish(arguments, "Number of clusters found", {"rows": rows, "summary": summary})
    harness.print_table(f"Of {len(rows)} sets", [{"criterion": name, **numbers} for name, numbers in summary.items()])


def measure(rows: np.ndarray, max_k: int) -> harness.Row:
    found: harness.Row = {}
    for criterion in COUNT_CRITERIA:
        config = ClusterConfig(choose_k=criterion, max_k=max_k)
        times = harness.time_once(cluster_embeddings, rows, config, 0, select("cpu"))
        found |= {criterion: len(times.result.clusters.sizes), f"{criterion}_s": times.median_s}
    return found


def summarise_criterion(criterion: str, rows: list[harness.Row]) -> harness.Row:
    return {
        "mean_error": statistics.fmean(abs(math.log(row[criterion] / row["k"])) for row in rows),
        "right": sum(abs(row[criterion] - row["k"]) <= 0.1 * row["k"] for row in rows),
    }


if __name__ == "__main__":
    main()
