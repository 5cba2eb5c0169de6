"""Table 8: more clusters than classes, matched by majority vote."""

from __future__ import annotations

from bench.paper.experiment import Experiment
from bench.paper.result import Result

NEEDS = "--data voc:PATH@val, or a folder."
SEEDS = 3
FACTORS = (1, 1.5, 2.5)  # of the number of classes: the paper's 20, 30 and 50 for 20


def measure(experiment: Experiment) -> Result:
    columns = ("clusters", "mIoU, majority", "pixel accuracy, majority", "mIoU, Hungarian")
    result = Result(f"Over-clustering {experiment.k} classes, {experiment.seeds} seeds", columns)
    run = experiment.objects
    for factor in FACTORS:
        k = round(factor * experiment.k)
        clustered = [experiment.cluster_run(run, seed, k=k) for seed in range(experiment.seeds)]
        scores = [experiment.score_clusters(run, clusters) for clusters in clustered]
        majority = [one.majority for one in scores]
        pixels = [one.pixel_accuracy for one in majority]
        result.add(str(k), [one.miou for one in majority], pixels, [one.hungarian.miou for one in scores])
    return result
