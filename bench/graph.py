"""Nearest neighbours against what a user would run instead: seconds, memory and recall.

    python -m bench.graph --planted ../shared/reference/planted.py --sizes 11000 118000
    python -m bench.graph --planted ../shared/reference/planted.py --device cuda --sizes 1000000

Sides: fastcomus (`--recall`), FAISS's exact search (`faiss.knn`, on a GPU `faiss.knn_gpu`), scikit-learn's
NearestNeighbors (exact, CPU), and pynndescent where it is installed (CPU). Each runs in a process of its own on the
same rows, with as many threads, once to warm up on a few rows and once measured. Recall is counted on a sample, by
distance, against exact search. Embeddings of your own: `--embeddings FILE`.
"""

from __future__ import annotations

import numpy as np

from bench import harness
from fastcomus.config import ClusterConfig

ON_CPU_ONLY = ("scikit-learn", "pynndescent")
SAMPLE = 300


def main() -> None:
    parser = harness.make_parser(__doc__, "graph", device="cpu", threads=1)
    harness.add_row_options(parser, [1_500, 11_000])
    harness.add_side_options(parser, SEARCHES)
    parser.add_argument("--neighbors", type=int, default=ClusterConfig().n_neighbors, help="the row itself included")
    parser.add_argument("--recall", type=float, default=ClusterConfig().recall, help="fastcomus --recall")
    arguments = parser.parse_args()
    device = harness.select_device(arguments.device)
    arguments.sides = [side for side in arguments.sides if device == "cpu" or side not in ON_CPU_ONLY]
    given = (arguments.neighbors, arguments.recall, device)
    rows = [row for same in harness.iterate_sides(arguments, measure_side, lambda one: None, *given) for row in same]
    packages = ("faiss-cpu", "faiss-gpu", "cuvs-cu13", "scikit-learn", "pynndescent")
    harness.finish(arguments, "Nearest neighbours", {"rows": rows}, *packages)


def measure_side(side: str, given: harness.Input, count: int, recall: float, device: str) -> harness.Row:
    embeddings, find, seed = np.load(given.rows), SEARCHES[side], given.seed
    for some in (embeddings[:1_000], embeddings[:6_000]):  # code is compiled and loaded when it is first needed
        find(some, count, recall, seed, device)
    times = harness.time_once(find, embeddings, count, recall, seed, device, device=device)
    measured = {"cpu_s": times.cpu_s[0], "wall_s": times.wall_s[0], "peak_mib": harness.measure_peak_mib()}
    return {**measured, "recall": measure_graph_recall(embeddings, times.result, count, seed)}


def measure_graph_recall(embeddings: np.ndarray, found: np.ndarray, count: int, seed: int) -> float:
    """Share of the true neighbours of a sample, the rows themselves left out, among `found` (N, count)."""
    from fastcomus.backends.centred_rows import CentredRows
    from fastcomus.backends.nearest_neighbors import measure_recall, search_by_products
    from fastcomus.backends.threads import start_threads

    rows = CentredRows(embeddings)
    sample = np.sort(np.random.default_rng(seed + 1).choice(len(rows), min(SAMPLE, len(rows)), replace=False))
    with start_threads(1) as workers:
        farthest = search_by_products(rows[sample], rows, count, workers)[0][:, -1]
    others = np.where(found[sample] == sample[:, None], -1, found[sample])
    return float(measure_recall(rows, sample, others, farthest, count - 1))


def search_with_fastcomus(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    from fastcomus.backends.choose import select

    return select(device).find_neighbors(rows, count, recall, seed).indices


def search_with_faiss(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    import faiss

    if device == "cpu":
        return faiss.knn(rows, rows, count)[1]
    number = int(device.partition(":")[2] or 0)
    return faiss.knn_gpu(faiss.StandardGpuResources(), rows, rows, count, device=number)[1]


def search_with_scikit_learn(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=count, n_jobs=-1).fit(rows).kneighbors(rows, return_distance=False)


def search_with_pynndescent(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    from pynndescent import NNDescent

    return NNDescent(rows, n_neighbors=count, random_state=seed).neighbor_graph[0]


SEARCHES = {
    "fastcomus": search_with_fastcomus,
    "faiss exact": search_with_faiss,
    "scikit-learn": search_with_scikit_learn,
    "pynndescent": search_with_pynndescent,
}


if __name__ == "__main__":
    main()
