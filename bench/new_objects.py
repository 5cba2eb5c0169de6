"""New objects put into old clusters (`fastcomus assign`), against clustering everything again.

    python -m bench.new_objects --planted ../shared/reference/planted.py
    python -m bench.new_objects --embeddings comus-run/objects/part-*.parquet --k 14

Nine tenths of the rows are clustered and the others assigned. Prints the leave-one-out agreement (the share of
clustered objects that come to their own cluster when they are taken for new ones), the adjusted Rand index of the
assigned labels to those of a clustering of all rows, beside that of the clustered part (what clustering fewer rows
costs by itself), and the seconds of both ways. Means over the seeds.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_rand_score

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.clusters.assignment import assign_embeddings, label_by_neighbours
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import AssignConfig, ClusterConfig


def main() -> None:
    parser = harness.make_parser(__doc__, "new_objects")
    harness.add_row_options(parser, [1_500, 11_000], seeds=3)
    arguments = parser.parse_args()
    inputs = harness.iterate_inputs(arguments)
    rows = [{"set": one.name, **measure(np.load(one.rows), one.k, one.seed)} for one in inputs]
    harness.finish(arguments, "Means over the seeds", {"rows": rows}, shown=harness.average_rows(rows, "set"))


def measure(rows: np.ndarray, k: int, seed: int) -> harness.Row:
    config, backend = ClusterConfig(k=k), select("cpu")
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    known, new = np.split(rows, [len(rows) * 9 // 10])
    again = harness.time_once(cluster_embeddings, rows, config, seed, backend)
    full, part = again.result.clusters.labels, cluster_embeddings(known, config, seed, backend)
    given = (new, known, part.clusters, part.maps, config, AssignConfig().outliers, seed, backend)
    assigned = harness.time_once(assign_embeddings, *given)
    near = backend.find_neighbors(known, config.n_neighbors, 1.0, seed).indices[:, 1:]
    alone, _ = label_by_neighbours(known, near, part.clusters, part.maps, config)
    return {
        "leave_one_out_agreement": float((alone == part.clusters.labels).mean()),
        "ari_of_assigned": adjusted_rand_score(full[len(known) :], assigned.result.labels),
        "ari_of_clustered_part": adjusted_rand_score(full[: len(known)], part.clusters.labels),
        "outliers": float(assigned.result.is_outlier.mean()),
        "assign_s": assigned.median_s,
        "cluster_again_s": again.median_s,
    }


if __name__ == "__main__":
    main()
