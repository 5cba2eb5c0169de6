"""Eigenvectors of the graph against what a user would run instead: seconds, memory, residual, labels.

    python -m bench.spectral --planted ../shared/reference/planted.py --sizes 11000 30000
    python -m bench.spectral --planted ../shared/reference/planted.py --device cuda --sizes 118000

One graph for all sides, made by fastcomus. Sides: fastcomus; the solvers of scikit-learn's SpectralClustering, `arpack`
(its default), `lobpcg` and `amg` (needs pyamg), by `spectral_embedding`; and SciPy's `eigsh` on D^-1/2 W D^-1/2. Each
runs in a process of its own, with as many threads. Quality: the largest |W' v - mu v| of what it gave, with mu the
Rayleigh quotient; how far the sum of its mu falls short of the best side's; and the adjusted Rand index of the labels
that k-means on the rows finds, to the planted classes. The other sides run on the CPU whatever `--device` says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from fastcomus.config import ClusterConfig

SIDES = ("fastcomus", "arpack", "lobpcg", "amg", "eigsh")


def main() -> None:
    parser = harness.make_parser(__doc__, "spectral", device="cpu", threads=1)
    harness.add_row_options(parser, [1_500, 11_000])
    harness.add_side_options(parser, SIDES)
    arguments = parser.parse_args()
    device, rows = harness.select_device(arguments.device), []
    for same in harness.iterate_sides(arguments, measure_side, write_graph, device):
        best = max((row["sum_of_mu"] for row in same if "gave_up" not in row), default=0.0)
        rows += [row if "gave_up" in row else {**row, "short_of_best": best - row["sum_of_mu"]} for row in same]
    harness.finish(arguments, "Eigenvectors", {"rows": rows}, "scipy", "scikit-learn", "pyamg", "cuml-cu13")


def write_graph(given: harness.Input) -> None:
    """The neighbours' graph of the rows, without loops, as files beside them."""
    from scipy.sparse import save_npz

    from fastcomus.backends.choose import select
    from fastcomus.clusters.graph import build_knn_graph, drop_loops

    config, place = ClusterConfig(), Path(given.rows)
    made = build_knn_graph(np.load(place), config.n_neighbors, config.metric, config.recall, given.seed, select("cpu"))
    save_npz(place.with_name("graph.npz"), drop_loops(made.affinity), compressed=False)
    np.save(place.with_name("order.npy"), made.order)


def measure_side(side: str, given: harness.Input, device: str) -> harness.Row:
    import sklearn.cluster
    import sklearn.manifold  # libraries are loaded before the clock starts, on every side
    from scipy.sparse import csr_array, csr_matrix, load_npz
    from sklearn.metrics import adjusted_rand_score

    from fastcomus.backends.choose import select
    from fastcomus.clusters.eigenmaps import compute_eigenmaps

    k, seed, place = given.k, given.seed, Path(given.rows)
    affinity, order = csr_array(load_npz(place.with_name("graph.npz"))), np.load(place.with_name("order.npy"))
    scale = 1 / np.sqrt(np.asarray(affinity.sum(axis=1)).ravel().astype(np.float64))
    backend = select(device)

    def solve() -> np.ndarray:
        if side == "fastcomus":
            return compute_eigenmaps(affinity, k, seed, backend, order).rows
        if side == "eigsh":
            return scale[:, None] * compute_largest(affinity, scale, k, seed)
        return sklearn.manifold.spectral_embedding(
            csr_matrix(affinity), n_components=k, eigen_solver=side, random_state=seed, drop_first=False
        )

    times = harness.time_once(solve, device=device)
    peak, rows = harness.measure_peak_mib(), times.result
    values, residual = measure_quality(affinity, scale, rows.astype(np.float64) / scale[:, None])
    labels = sklearn.cluster.k_means(rows, k, random_state=seed, n_init=10)[1]
    ari = adjusted_rand_score(np.load(given.classes), labels) if given.classes else float("nan")
    measured = {"cpu_s": times.cpu_s[0], "wall_s": times.wall_s[0], "peak_mib": peak}
    return {**measured, "residual": residual, "sum_of_mu": float(values.sum()), "ari": ari}


def measure_quality(affinity: Any, scale: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Rayleigh quotients mu (k,) of the span of `vectors` (N, k), and the largest |W' v - mu v|; `scale`: D^-1/2."""
    span = np.linalg.qr(vectors)[0]
    product = scale[:, None] * (affinity @ (scale[:, None] * span))
    values, rotation = np.linalg.eigh(span.T @ product)
    rest = product @ rotation - (span @ rotation) * values
    return values, float(np.linalg.norm(rest, axis=0).max())


def compute_largest(affinity: Any, scale: np.ndarray, k: int, seed: int) -> np.ndarray:
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(seed).uniform(-1, 1, len(scale))
    return eigsh(diags_array(scale) @ affinity @ diags_array(scale), k=k, which="LA", v0=start)[1]


if __name__ == "__main__":
    main()
