"""The clustering core against the recipe that people use, stage by stage, on planted embeddings.

    python bench/clustering.py --planted ../shared/reference/planted.py --sizes 1500 11000

The recipe: scikit-learn's `kneighbors_graph` + `spectral_embedding` + `k_means`, which is what the original program
runs, with its solvers `arpack` (the default), `lobpcg` and `amg` (needs pyamg). Every side runs in a process of its own
on the same rows, with one thread by default, and reports CPU-seconds of each stage and wall-clock seconds, peak memory,
and the adjusted Rand index of its labels to the planted classes and to the recipe's. `--device cuda` moves fastcomus to
a GPU, not the recipe. Embeddings of your own: `--embeddings FILE --k K`. Stage by stage: bench/graph.py and
bench/spectral.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from measurement import Timed, describe_machine, measure_peak_mib, parse_device, run_in_process, write_numbers
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score

from fastcomus.config import ASSIGNMENTS, ClusterConfig

SIDES = ("fastcomus", "arpack", "lobpcg", "amg")
STAGES = ("graph", "eigenmaps", "labels")
NEIGHBORS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_options(parser)
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--recall", type=float, default=ClusterConfig().recall, help="fastcomus --recall")
    parser.add_argument("--assign", default=ClusterConfig().assign, choices=ASSIGNMENTS, help="fastcomus --assign")
    parser.add_argument("--json", type=Path, default=Path("bench/results/clustering.json"))
    arguments = parser.parse_args()
    if arguments.one_side:
        print(json.dumps(_measure_side(**json.loads(arguments.one_side))))
        return
    numbers, device = [], parse_device(arguments.device)
    with tempfile.TemporaryDirectory() as scratch:
        for name, rows, classes, k, seed in inputs.iterate_inputs(arguments, Path(scratch)):
            same_input = []
            for side in arguments.sides:
                given = {
                    "side": side,
                    "rows": rows,
                    "classes": classes,
                    "k": k,
                    "seed": seed,
                    "assign": arguments.assign,
                }
                given |= {"device": device, "recall": arguments.recall, "labels": str(Path(scratch, f"{side}.npy"))}
                measured = run_in_process(__file__, given, *inputs.resolve_limits(arguments))
                same_input.append({"input": name, "seed": seed, "side": side, "k": k, **measured})
                Console(stderr=True).print(same_input[-1])
            _compare_with_recipe(same_input, Path(scratch))
            numbers += same_input
    about = describe_machine(device, "faiss-cpu", "faiss-gpu", "scipy", "scikit-learn")
    write_numbers(arguments.json, {**about, "threads": arguments.threads, "rows": numbers})
    Console(width=150).print(build_table(numbers, arguments.threads))


def build_table(numbers: list[dict[str, Any]], threads: int) -> Table:
    """A row per input and side, means over the seeds."""
    made = Table(title=f"CPU-seconds, {threads} thread(s), n_neighbors {NEIGHBORS}; means over the seeds")
    for column in (
        "input",
        "side",
        *STAGES,
        "total",
        "wall s",
        "peak MiB",
        "recall",
        "ARI to truth",
        "to recipe",
        "ratio",
    ):
        made.add_column(column, justify="left" if column in ("input", "side") else "right")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in numbers:
        groups.setdefault((row["input"], row["side"]), []).append(row)
    ours = {name: _compute_mean(rows, "total") for (name, side), rows in groups.items() if side == "fastcomus"}
    for (name, side), rows in groups.items():
        if any("gave_up" in row for row in rows):
            made.add_row(name, side, *["-"] * 10, rows[0]["gave_up"] if "gave_up" in rows[0] else "gave up")
            continue
        total = _compute_mean(rows, "total")
        ratio = f"{total / ours[name]:.1f} x" if name in ours else "-"
        stages = [f"{_compute_mean(rows, stage):.2f}" for stage in STAGES]
        rest = [f"{total:.2f}", f"{_compute_mean(rows, 'wall'):.2f}", f"{_compute_mean(rows, 'peak_mib'):.0f}"]
        quality = [f"{_compute_mean(rows, measure):.3f}" for measure in ("recall", "ari", "ari_to_recipe")]
        made.add_row(name, side, *stages, *rest, *quality, ratio)
    return made


def _compute_mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _compare_with_recipe(same_input: list[dict[str, Any]], scratch: Path) -> None:
    """Set `ari_to_recipe`: to the labels of the recipe's first solver that finished."""
    finished = [row for row in same_input if "gave_up" not in row]
    labels = {row["side"]: np.load(scratch / f"{row['side']}.npy") for row in finished}
    recipe = next((side for side in labels if side != "fastcomus"), None)
    for row in finished:
        same = adjusted_rand_score(labels[recipe], labels[row["side"]]) if recipe else float("nan")
        row["ari_to_recipe"] = same


def _measure_side(
    side: str, rows: str, classes: str, k: int, seed: int, device: str, recall: float, assign: str, labels: str
) -> dict[str, Any]:
    embeddings = np.load(rows)
    times: dict[str, float] = {}
    if side == "fastcomus":
        found, reached = _run_ours(embeddings, k, seed, device, recall, assign, times)
    else:
        found, reached = _run_recipe(embeddings, k, seed, side, times), 1.0
    np.save(labels, found)
    wall = times.pop("wall")
    measured = {**times, "total": sum(times.values()), "wall": wall, "recall": reached}
    measured["peak_mib"] = measure_peak_mib()
    measured["ari"] = adjusted_rand_score(np.load(classes), found) if classes else float("nan")
    return measured


def _run_ours(
    rows: np.ndarray, k: int, seed: int, device: str, recall: float, assign: str, times: dict[str, float]
) -> tuple[np.ndarray, float]:
    import sklearn.cluster  # noqa: F401  libraries are loaded before the clock starts, on every side

    from fastcomus.backends.choose import select
    from fastcomus.backends.nearest_neighbors import import_faiss, search_neighbors
    from fastcomus.clusters.eigenmaps import compute_eigenmaps
    from fastcomus.clusters.graph import build_knn_graph
    from fastcomus.clusters.labels import cluster_rows

    import_faiss()
    backend, config = select(device), ClusterConfig(k=k, recall=recall)
    # Warm up every kind of search: code for this processor is compiled when it is first needed.
    for some, all_pairs_rows in ((1_000, 0), (1_000, 10_000), (6_000, 10_000)):
        search_neighbors(rows[:some], NEIGHBORS, 0.99, seed, 1, all_pairs_rows)
    with Timed(times, "graph", device):
        graph = build_knn_graph(rows, NEIGHBORS, config.metric, recall, seed, backend)
    with Timed(times, "eigenmaps", device):
        maps = compute_eigenmaps(graph.affinity, k, seed, backend, graph.order)
    with Timed(times, "labels", device):
        labels = cluster_rows(maps.rows, k, assign, config, seed, backend).labels
    return labels, graph.recall


def _run_recipe(rows: np.ndarray, k: int, seed: int, side: str, times: dict[str, float]) -> np.ndarray:
    from sklearn.cluster import k_means
    from sklearn.manifold import spectral_embedding
    from sklearn.neighbors import kneighbors_graph

    with Timed(times, "graph"):
        directed = kneighbors_graph(rows, NEIGHBORS, include_self=True)
        affinity = 0.5 * (directed + directed.T)
    with Timed(times, "eigenmaps"):
        maps = spectral_embedding(affinity, n_components=k, eigen_solver=side, random_state=seed, drop_first=False)
    with Timed(times, "labels"):
        return np.asarray(k_means(maps, k, random_state=seed, n_init=10)[1])


if __name__ == "__main__":
    main()
