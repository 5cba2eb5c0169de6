"""Eigenvectors of the graph against what a user would run instead: seconds, memory, residual, labels.

    python bench/spectral.py --planted ../shared/reference/planted.py --sizes 11000 30000
    python bench/spectral.py --planted ../shared/reference/planted.py --device cuda --sizes 118000

One graph for all sides, made by fastcomus. Sides: fastcomus; the solvers of scikit-learn's SpectralClustering, `arpack`
(its default), `lobpcg` and `amg` (needs pyamg), by `spectral_embedding`; and SciPy's `eigsh` on D^-1/2 W D^-1/2. Each
runs in a process of its own, with as many threads. Quality: the largest |W' v - mu v| of what it gave, with mu the
Rayleigh quotient; how far the sum of its mu falls short of the best side's; and the adjusted Rand index of the labels
that k-means on the rows finds, to the planted classes. The other sides run on the CPU whatever `--device` says.
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

from fastcomus.config import ClusterConfig

SIDES = ("fastcomus", "arpack", "lobpcg", "amg", "eigsh")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_options(parser)
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--json", type=Path, default=Path("bench/results/spectral.json"))
    arguments = parser.parse_args()
    if arguments.one_side:
        print(json.dumps(measure_side(**json.loads(arguments.one_side))))
        return
    device = parse_device(arguments.device)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, file, classes, k, seed in inputs.iterate_inputs(arguments, Path(scratch)):
            graph = make_graph_file(file, seed, Path(scratch))
            same_input = []
            for side in arguments.sides:
                given = {"side": side, "graph": graph, "classes": classes, "k": k, "seed": seed, "device": device}
                measured = run_in_process(__file__, given, *inputs.resolve_limits(arguments))
                same_input.append({"input": name, "side": side, **measured})
                Console(stderr=True).print(same_input[-1])
            best = max((row["sum_of_mu"] for row in same_input if "gave_up" not in row), default=0.0)
            rows += [
                row if "gave_up" in row else {**row, "short_of_best": best - row["sum_of_mu"]} for row in same_input
            ]
    about = describe_machine(device, "scipy", "scikit-learn", "pyamg", "cuml-cu13")
    write_numbers(arguments.json, {**about, "threads": arguments.threads, "rows": rows})
    Console(width=130).print(build_table(rows, about["hardware"]))


def build_table(rows: list[dict[str, Any]], hardware: str) -> Table:
    titles = ("input", "side", "CPU s", "wall s", "peak MiB", "residual", "short of best", "ARI to truth")
    made = Table(*titles, title=hardware)
    for row in rows:
        if "gave_up" in row:
            made.add_row(row["input"], row["side"], *["-"] * 5, row["gave_up"])
            continue
        numbers = [f"{row['cpu_s']:.2f}", f"{row['wall_s']:.2f}", f"{row['peak_mib']:.0f}"]
        quality = [f"{row['residual']:.1e}", f"{row['short_of_best']:.1e}", f"{row['ari']:.3f}"]
        made.add_row(row["input"], row["side"], *numbers, *quality)
    return made


def make_graph_file(file: str, seed: int, scratch: Path) -> str:
    """The neighbours' graph of the rows in `file`, without loops, as a file."""
    from scipy.sparse import save_npz

    from fastcomus.backends.choose import select
    from fastcomus.clusters.graph import build_knn_graph, drop_loops

    config = ClusterConfig()
    made = build_knn_graph(np.load(file), config.n_neighbors, config.metric, config.recall, seed, select("cpu"))
    save_npz(scratch / "graph.npz", drop_loops(made.affinity), compressed=False)
    np.save(scratch / "order.npy", made.order)
    return str(scratch / "graph.npz")


def measure_side(side: str, graph: str, classes: str, k: int, seed: int, device: str) -> dict[str, Any]:
    import sklearn.cluster
    import sklearn.manifold  # libraries are loaded before the clock starts, on every side
    from scipy.sparse import csr_array, csr_matrix, load_npz
    from sklearn.metrics import adjusted_rand_score

    from fastcomus.backends.choose import select
    from fastcomus.clusters.eigenmaps import compute_eigenmaps

    affinity, order = csr_array(load_npz(graph)), np.load(Path(graph).with_name("order.npy"))
    scale = 1 / np.sqrt(np.asarray(affinity.sum(axis=1)).ravel().astype(np.float64))
    times: dict[str, float] = {}
    backend = select(device)
    with Timed(times, "cpu_s", device):
        if side == "fastcomus":
            rows = compute_eigenmaps(affinity, k, seed, backend, order).rows
        elif side == "eigsh":
            rows = scale[:, None] * _compute_largest(affinity, scale, k, seed)
        else:
            rows = sklearn.manifold.spectral_embedding(
                csr_matrix(affinity), n_components=k, eigen_solver=side, random_state=seed, drop_first=False
            )
    peak = measure_peak_mib()
    values, residual = measure_quality(affinity, scale, rows.astype(np.float64) / scale[:, None])
    labels = sklearn.cluster.k_means(rows, k, random_state=seed, n_init=10)[1]
    ari = adjusted_rand_score(np.load(classes), labels) if classes else float("nan")
    measured = {"cpu_s": times["cpu_s"], "wall_s": times["wall"], "peak_mib": peak}
    return {**measured, "residual": residual, "sum_of_mu": float(values.sum()), "ari": ari}


def measure_quality(affinity: Any, scale: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Rayleigh quotients mu (k,) of the span of `vectors` (N, k), and the largest |W' v - mu v|; `scale`: D^-1/2."""
    span = np.linalg.qr(vectors)[0]
    product = scale[:, None] * (affinity @ (scale[:, None] * span))
    values, rotation = np.linalg.eigh(span.T @ product)
    rest = product @ rotation - (span @ rotation) * values
    return values, float(np.linalg.norm(rest, axis=0).max())


def _compute_largest(affinity: Any, scale: np.ndarray, k: int, seed: int) -> np.ndarray:
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(seed).uniform(-1, 1, len(scale))
    return eigsh(diags_array(scale) @ affinity @ diags_array(scale), k=k, which="LA", v0=start)[1]


if __name__ == "__main__":
    main()
