"""From rows in the host's memory to labels: seconds of each operation, memory, recall, and the labels' quality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from bench import harness
from bench.gpu.place import Place
from bench.gpu.steps import Part
from fastcomus.backends.placed import fetch
from fastcomus.backends.torch_kmeans import run_kmeans_on
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import ClusterConfig


def list_parts(place: Place) -> Iterator[Part]:
    few, many, k = place.choose((118_000, 1_000_000, 80), (500, 2_100, 6))
    yield f"{few} rows", lambda: measure_clustering(place, few, k)
    yield f"k-means, {few} rows", lambda: measure_kmeans(place, few, k)
    yield f"{many} rows", lambda: measure_clustering(place, many, k)
    for name in ("cuvs", "faiss"):
        from fastcomus.backends.gpu import is_installed

        if place.device.type == "cuda" and is_installed(name):
            yield f"{many} rows, neighbours by {name}", lambda name=name: measure_library(place, name, many)


class TimedBackend:
    """A backend whose operations are timed, each until the device has ended; `seconds` by operation."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.seconds, self.found = backend, defaultdict(float), {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.backend, name)
        if not callable(value):
            return value

        def work(*given: Any, **named: Any) -> Any:
            times = harness.time_once(lambda: value(*given, **named), device=str(self.backend.device))
            self.seconds[name] += times.median_s
            self.found[name] = times.result
            return times.result

        return work


def measure_clustering(place: Place, count: int, k: int) -> dict[str, Any]:
    """By the defaults, after a small one to warm up."""
    config = ClusterConfig(k=k)
    dimension = place.choose(384, 32)
    warm, _ = place.plant_rows(place.choose(8_000, 200), k, dimension)
    cluster_embeddings(warm, config, 0, place.torch_backend)
    rows, classes = place.plant_rows(count, k, dimension)
    timed = TimedBackend(next(reversed(place.backends.values())))
    measured = place.measure(lambda: timed.found.update(made=cluster_embeddings(rows, config, 0, timed)), repeats=-1)
    made, neighbors = timed.found["made"], timed.found["find_neighbors"]
    by_operation = {name: round(seconds, 4) for name, seconds in timed.seconds.items()}
    operations = 2.0 * count * count * dimension
    return {
        **measured,
        "by operation, s": by_operation,
        "on the host beside them, s": round(measured["median_s"] - sum(by_operation.values()), 4),
        "all pairs at the ceiling, s": round(place.bound(bfloat16=operations), 4),
        "rows to the device at the ceiling, s": round(place.bound(sent=4.0 * rows.size), 4),
        "recall": measure_recall(place, rows, fetch(neighbors.indices)),
        "recall told": neighbors.recall,
        "residual": made.maps.residual,
        "ari": adjusted_rand_score(classes, made.clusters.labels),
    }


def measure_recall(place: Place, rows: np.ndarray, found: np.ndarray, sample: int = 300) -> float:
    """Share of the true neighbours, found in float64, that rows of a sample have; by distance, so that ties count."""
    chosen = np.random.default_rng(1).choice(len(rows), min(sample, len(rows)), replace=False)
    count, shared = found.shape[1], 0.0
    for some in np.array_split(chosen, max(1, len(chosen) // 20)):
        wide = torch.from_numpy(rows[some]).to(place.device).double()
        best = torch.full((len(some), count), torch.inf, dtype=torch.float64, device=place.device)
        for start in range(0, len(rows), 100_000):
            block = torch.from_numpy(rows[start : start + 100_000]).to(place.device).double()
            near = torch.cdist(wide, block).topk(min(count, len(block)), largest=False).values
            best = torch.cat([best, near], 1).topk(count, largest=False).values
        own = torch.from_numpy(rows[found[some]]).to(place.device).double()
        distances = (own - wide[:, None]).norm(dim=2)
        shared += float((distances <= best[:, -1:] * (1 + 1e-9)).double().mean(1).sum())
    return round(shared / len(chosen), 5)


def measure_kmeans(place: Place, count: int, k: int) -> dict[str, Any]:
    """The best of ten runs by torch on eigenmaps' shape, and of cuML's where it is installed."""
    from fastcomus.backends.gpu import GpuBackend, is_installed

    rows, _ = place.plant_rows(count, k, k, 0.8)
    runs = place.choose(10, 2)
    placed = torch.from_numpy(rows).to(place.device)
    found = {"torch": place.measure(lambda: run_kmeans_on(placed, k, runs, 0, None), repeats=1)}
    if place.device.type == "cuda" and is_installed("cuml"):
        backend = GpuBackend(place.device)
        found["cuML"] = place.measure(lambda: backend._run_cuml_kmeans(placed, k, runs, 0, None), repeats=1)
    return found


def measure_library(place: Place, name: str, count: int) -> dict[str, Any]:
    from fastcomus.backends import gpu_neighbors
    from fastcomus.backends.centred_rows import CentredRows

    search = {"cuvs": gpu_neighbors.search_by_cagra, "faiss": gpu_neighbors.search_inverted_lists}[name]
    rows, _ = place.plant_rows(count, 80)
    centred, found = CentredRows(rows), {}
    measured = place.measure(lambda: found.update(it=search(centred, 30, 0.95, 0, place.device)), repeats=-1)
    return {**measured, "recall": measure_recall(place, rows, found["it"][0]), "recall told": found["it"][1]}
