"""The clustering core against the recipe that people use, stage by stage, on planted embeddings.

    python -m bench.clustering --planted ../shared/reference/planted.py --sizes 1500 11000

The recipe: scikit-learn's `kneighbors_graph` + `spectral_embedding` + `k_means`, which is what the original program
runs, with its solvers `arpack` (the default), `lobpcg` and `amg` (needs pyamg). Every side runs in a process of its own
on the same rows, with one thread by default, and reports CPU-seconds of each stage and wall-clock seconds, peak memory,
and the adjusted Rand index of its labels to the planted classes and to the recipe's. `--device cuda` moves fastcomus to
a GPU, not the recipe. Embeddings of your own: `--embeddings FILE --k K`. Stage by stage: bench/graph.py and
bench/spectral.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from bench import harness
from fastcomus.config import ASSIGNMENTS, ClusterConfig

SIDES = ("fastcomus", "arpack", "lobpcg", "amg")
NEIGHBORS = 30
Steps = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], np.ndarray]]


def main() -> None:
    parser = harness.make_parser(__doc__, "clustering", device="cpu", threads=1)
    harness.add_row_options(parser, [1_500, 11_000])
    harness.add_side_options(parser, SIDES)
    parser.add_argument("--recall", type=float, default=ClusterConfig().recall, help="fastcomus --recall")
    parser.add_argument("--assign", default=ClusterConfig().assign, choices=ASSIGNMENTS, help="fastcomus --assign")
    arguments = parser.parse_args()
    device = harness.select_device(arguments.device)
    config = ClusterConfig(recall=arguments.recall, assign=arguments.assign)
    rows: list[harness.Row] = []
    for same in harness.iterate_sides(arguments, measure_side, lambda one: None, device, config):
        labels = {row["side"]: row.pop("found") for row in same if "gave_up" not in row}
        recipe = next((side for side in labels if side != "fastcomus"), None)  # its first solver that finished
        for row in same:
            if recipe and row["side"] in labels:
                row["ari_to_recipe"] = adjusted_rand_score(labels[recipe], labels[row["side"]])
            if "fastcomus" in labels and row["side"] in labels:
                row["ratio"] = row["total"] / same[arguments.sides.index("fastcomus")]["total"]
        rows += same
    packages = ("faiss-cpu", "faiss-gpu", "scipy", "scikit-learn")
    means = harness.average_rows(rows, "input", "side")
    harness.finish(arguments, "CPU-seconds, means over the seeds", {"rows": rows}, *packages, shown=means)


def measure_side(side: str, given: harness.Input, device: str, config: ClusterConfig) -> harness.Row:
    rows = np.load(given.rows)
    steps = prepare_ours(rows, given, device, config) if side == "fastcomus" else prepare_recipe(rows, given, side)
    graph = harness.time_once(steps[0], device=device)
    maps = harness.time_once(steps[1], graph.result, device=device)
    labels = harness.time_once(steps[2], maps.result, device=device)
    times = {"graph": graph, "eigenmaps": maps, "labels": labels}
    return {
        **{stage: one.cpu_s[0] for stage, one in times.items()},
        "total": sum(one.cpu_s[0] for one in times.values()),
        "wall": sum(one.wall_s[0] for one in times.values()),
        "k": given.k,
        "recall": getattr(graph.result, "recall", 1.0),
        "peak_mib": harness.measure_peak_mib(),
        "ari": adjusted_rand_score(np.load(given.classes), labels.result) if given.classes else float("nan"),
        "found": labels.result,
    }


def prepare_ours(rows: np.ndarray, given: harness.Input, device: str, config: ClusterConfig) -> Steps:
    import sklearn.cluster  # noqa: F401  libraries are loaded before the clock starts, on every side

    from fastcomus.backends.choose import select
    from fastcomus.backends.nearest_neighbors import import_faiss, search_neighbors
    from fastcomus.clusters.eigenmaps import compute_eigenmaps
    from fastcomus.clusters.graph import build_knn_graph
    from fastcomus.clusters.labels import cluster_rows

    import_faiss()
    backend, k, seed = select(device), given.k, given.seed
    # Warm up every kind of search: code for this processor is compiled when it is first needed.
    for all_pairs_rows in (0, 1_000):
        search_neighbors(rows[:1_000], NEIGHBORS, 0.99, seed, 1, all_pairs_rows)
    return (
        lambda: build_knn_graph(rows, NEIGHBORS, config.metric, config.recall, seed, backend),
        lambda graph: compute_eigenmaps(graph.affinity, k, seed, backend, graph.order),
        lambda maps: cluster_rows(maps.rows, k, config.assign, config, seed, backend).labels,
    )


def prepare_recipe(rows: np.ndarray, given: harness.Input, solver: str) -> Steps:
    from sklearn.cluster import k_means
    from sklearn.manifold import spectral_embedding
    from sklearn.neighbors import kneighbors_graph

    def join_neighbors() -> Any:
        directed = kneighbors_graph(rows, NEIGHBORS, include_self=True)
        return 0.5 * (directed + directed.T)

    options = {"n_components": given.k, "eigen_solver": solver, "random_state": given.seed, "drop_first": False}
    return (
        join_neighbors,
        lambda affinity: spectral_embedding(affinity, **options),
        lambda maps: np.asarray(k_means(maps, given.k, random_state=given.seed, n_init=10)[1]),
    )


if __name__ == "__main__":
    main()
