"""Nearest neighbours against what a user would run instead: seconds, memory and recall.

    python bench/graph.py --planted ../shared/reference/planted.py --sizes 11000 118000
    python bench/graph.py --planted ../shared/reference/planted.py --device cuda --sizes 1000000

Sides: fastcomus (`--recall`), FAISS's exact search (`faiss.knn`, on a GPU `faiss.knn_gpu`), scikit-learn's
NearestNeighbors (exact, CPU), and pynndescent where it is installed (CPU). Each runs in a process of its own on the
same rows, with as many threads, once to warm up on a few rows and once measured. Recall is counted on a sample, by
distance, against exact search. Embeddings of your own: `--embeddings FILE`.
"""

from __future__ import annotations

import argparse
import importlib.util
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

SIDES = ("fastcomus", "faiss exact", "scikit-learn", "pynndescent")
ON_CPU_ONLY = ("scikit-learn", "pynndescent")
SAMPLE = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    inputs.add_options(parser)
    parser.add_argument("--neighbors", type=int, default=ClusterConfig().n_neighbors, help="the row itself included")
    parser.add_argument("--recall", type=float, default=ClusterConfig().recall, help="fastcomus --recall")
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--json", type=Path, default=Path("bench/results/graph.json"))
    arguments = parser.parse_args()
    if arguments.one_side:
        print(json.dumps(measure_side(**json.loads(arguments.one_side))))
        return
    device = parse_device(arguments.device)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, file, _, _, seed in inputs.iterate_inputs(arguments, Path(scratch)):
            for side in arguments.sides:
                if side in ON_CPU_ONLY and device != "cpu":
                    continue
                given = {"side": side, "rows": file, "count": arguments.neighbors, "recall": arguments.recall}
                measured = run_in_process(
                    __file__, {**given, "seed": seed, "device": device}, *inputs.resolve_limits(arguments)
                )
                rows.append({"input": name, "side": side, **measured})
                Console(stderr=True).print(rows[-1])
    about = describe_machine(device, "faiss-cpu", "faiss-gpu", "cuvs-cu13", "scikit-learn", "pynndescent")
    write_numbers(arguments.json, {**about, "threads": arguments.threads, "rows": rows})
    Console(width=120).print(build_table(rows, about["hardware"]))


def build_table(rows: list[dict[str, Any]], hardware: str) -> Table:
    made = Table("input", "side", "CPU s", "wall s", "peak MiB", "recall", title=hardware)
    for row in rows:
        if "gave_up" in row:
            made.add_row(row["input"], row["side"], "-", "-", "-", row["gave_up"])
        else:
            numbers = [f"{row['cpu_s']:.2f}", f"{row['wall_s']:.2f}", f"{row['peak_mib']:.0f}", f"{row['recall']:.4f}"]
            made.add_row(row["input"], row["side"], *numbers)
    return made


def measure_side(side: str, rows: str, count: int, recall: float, seed: int, device: str) -> dict[str, Any]:
    embeddings = np.load(rows)
    find = SEARCHES[side]
    for some in (embeddings[:1_000], embeddings[:6_000]):  # code is compiled and loaded when it is first needed
        find(some, count, recall, seed, device)
    times: dict[str, float] = {}
    with Timed(times, "cpu_s", device):
        found = find(embeddings, count, recall, seed, device)
    peak = measure_peak_mib()
    return {
        "cpu_s": times["cpu_s"],
        "wall_s": times["wall"],
        "peak_mib": peak,
        "recall": measure_graph_recall(embeddings, found, count, seed),
    }


def measure_graph_recall(embeddings: np.ndarray, found: np.ndarray, count: int, seed: int) -> float:
    """Share of the true neighbours of a sample, the rows themselves left out, among `found` (N, count)."""
    import faiss

    from fastcomus.backends.centred_rows import CentredRows
    from fastcomus.backends.nearest_neighbors import measure_recall, search_by_blocks

    rows = CentredRows(embeddings)
    sample = np.sort(np.random.default_rng(seed + 1).choice(len(rows), min(SAMPLE, len(rows)), replace=False))
    farthest = search_by_blocks(faiss.knn, rows[sample], rows, count)[0][:, -1]
    others = np.where(found[sample] == sample[:, None], -1, found[sample])
    return measure_recall(rows, sample, others, farthest, count - 1)


def _search_fastcomus(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    from fastcomus.backends.choose import select

    return select(device).find_neighbors(rows, count, recall, seed).indices


def _search_faiss_exact(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    import faiss

    if device == "cpu":
        return faiss.knn(rows, rows, count)[1]
    number = int(device.partition(":")[2] or 0)
    return faiss.knn_gpu(faiss.StandardGpuResources(), rows, rows, count, device=number)[1]


def _search_scikit_learn(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=count, n_jobs=-1).fit(rows).kneighbors(rows, return_distance=False)


def _search_pynndescent(rows: np.ndarray, count: int, recall: float, seed: int, device: str) -> np.ndarray:
    if importlib.util.find_spec("pynndescent") is None:
        raise SystemExit("pynndescent is not installed")
    from pynndescent import NNDescent

    return NNDescent(rows, n_neighbors=count, random_state=seed).neighbor_graph[0]


SEARCHES = {
    "fastcomus": _search_fastcomus,
    "faiss exact": _search_faiss_exact,
    "scikit-learn": _search_scikit_learn,
    "pynndescent": _search_pynndescent,
}


if __name__ == "__main__":
    main()
