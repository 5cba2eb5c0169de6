"""Table 10: how much n_neighbors, n_components and n_init matter."""

from __future__ import annotations

from bench.paper.experiment import Experiment
from bench.paper.result import Result

NEEDS = "--data voc:PATH@val, or a folder."
SEEDS = 3


def measure(experiment: Experiment) -> Result:
    columns = ("setting", "value", "mIoU", "pixel accuracy")
    result = Result(f"Sensitivity of the clusters, k-means on the eigenmaps, {experiment.seeds} seeds", columns)
    k = experiment.k
    for setting, values in (
        ("n_neighbors", (10, 20, 30, 50)),
        ("n_components", (round(0.75 * k), k, round(1.25 * k), round(1.5 * k))),
        ("n_init", (1, 10, 30)),
    ):
        for value in values:
            scores = []
            for seed in range(experiment.seeds):
                clusters = experiment.cluster_run(experiment.objects, seed, assign="kmeans", **{setting: value})
                scores.append(experiment.score_clusters(experiment.objects, clusters).hungarian)
            result.add(setting, value, [one.miou for one in scores], [one.pixel_accuracy for one in scores])
    return result
