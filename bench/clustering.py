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

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from bench import harness
from fastcomus.config import ASSIGNMENTS, ClusterConfig

SIDES = ("fastcomus", "arpack", "lobpcg", "amg")
STAGES = ("graph", "eigenmaps", "labels")
NEIGHBORS = 30
Steps = tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], np.ndarray]]


def main() -> None:
    parser = harness.make_parser(__doc__, "clustering", device="cpu", threads=1)
    harness.add_row_options(parser, [1_500, 11_000])
    harness.add_side_options(parser, SIDES)
    parser.add_argument("--recall", type=float, default=ClusterConfig().recall, help="fastcomus --recall")
    parser.add_argument("--assign", default=ClusterConfig().assign, choices=ASSIGNMENTS, help="fastcomus --assign")
    arguments = parser.parse_args()
    rows: list[harness.Row] = []
    device = harness.select_device(arguments.device)
    config = ClusterConfig(recall=arguments.recall, assign=arguments.assign)
    with tempfile.TemporaryDirectory() as scratch:
        for one in harness.iterate_inputs(arguments, Path(scratch)):
            same, labels = [], {}
            for side in arguments.sides:
                limits = {"threads": arguments.threads, "limit_s": arguments.limit}
                measured = harness.run_apart(measure_side, side, one, device, config, **limits)
                if "gave_up" not in measured:
                    labels[side] = measured.pop("found")
                same.append({"input": one.name, "seed": one.seed, "side": side, "k": one.k, **measured})
                harness.print_progress(same[-1])
            recipe = next((side for side in labels if side != "fastcomus"), None)  # its first solver that finished
            for row in same:
                if recipe and row["side"] in labels:
                    row["ari_to_recipe"] = adjusted_rand_score(labels[recipe], labels[row["side"]])
            rows += same
    about = harness.describe_run(device, "faiss-cpu", "faiss-gpu", "scipy", "scikit-learn")
    harness.write_json(arguments.json, {**about, "threads": arguments.threads, "rows": rows})
    means = harness.average_rows(rows, "input", "side")
    ours = {row["input"]: row["total"] for row in means if row["side"] == "fastcomus" and "total" in row}
    for row in means:
        row["ratio"] = row["total"] / ours[row["input"]] if "total" in row and row["input"] in ours else None
    columns = {"input": "{input}", "side": "{side}"} | {stage: f"{{{stage}:.2f}}" for stage in (*STAGES, "total")}
    columns |= {"wall s": "{wall:.2f}", "peak MiB": "{peak_mib:.0f}", "recall": "{recall:.3f}"}
    columns |= {"ARI to truth": "{ari:.3f}", "to recipe": "{ari_to_recipe:.3f}", "ratio": "{ratio:.1f} x"}
    title = f"CPU-seconds, {arguments.threads} thread(s), n_neighbors {NEIGHBORS}; means over the seeds"
    harness.print_table(title, means, columns)


def measure_side(side: str, given: harness.Input, device: str, config: ClusterConfig) -> harness.Row:
    rows = np.load(given.rows)
    steps = prepare_ours(rows, given, device, config) if side == "fastcomus" else prepare_recipe(rows, given, side)
    graph = harness.time_once(steps[0], device=device)
    maps = harness.time_once(steps[1], graph.result, device=device)
    labels = harness.time_once(steps[2], maps.result, device=device)
    times = dict(zip(STAGES, (graph, maps, labels), strict=True))
    return {
        **{stage: one.cpu_s[0] for stage, one in times.items()},
        "total": sum(one.cpu_s[0] for one in times.values()),
        "wall": sum(one.wall_s[0] for one in times.values()),
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
    for some, all_pairs_rows in ((1_000, 0), (1_000, 10_000), (6_000, 10_000)):
        search_neighbors(rows[:some], NEIGHBORS, 0.99, seed, 1, all_pairs_rows)
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
