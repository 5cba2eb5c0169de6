"""Table 5: k-means, spectral clustering, self-training, filter, second iteration."""

from __future__ import annotations

import statistics

from bench.paper.experiment import Experiment
from bench.paper.result import Result, note_order

NEEDS = "--data voc:PATH@val, or a folder; trains three networks."
SEEDS = 1
PAPER = {"voc": (0.408, 0.418, None, 0.452, 0.473)}


def measure(experiment: Experiment) -> Result:
    names = ("k-means", "spectral", "+ self-training", "+ filter", "+ second iteration")
    mious: list[list[float]] = [[] for _ in names]
    for seed in range(experiment.seeds):
        objects = experiment.objects
        for column, method in zip(mious, ("kmeans", "spectral"), strict=False):
            clusters = experiment.cluster_run(objects, seed, method=method)
            column.append(experiment.score_clusters(objects, clusters).hungarian.miou)
        unfiltered = experiment.run(f"unfiltered-{seed}", seed)
        unfiltered.cluster(filter=0.0)
        unfiltered.train(iterations=1)
        full = experiment.run(f"full-{seed}", seed)
        full.cluster()
        full.train(iterations=2)
        for column, run, iteration in zip(mious[2:], (unfiltered, full, full), (1, 1, 2), strict=True):
            column.append(experiment.score_iteration(run, iteration).hungarian.miou)
    result = Result(f"Ablation, mIoU over {len(experiment.masks.classes)} classes", ("step", "mIoU", "paper"))
    for name, values, paper in zip(names, mious, PAPER.get(experiment.source.kind, (None,) * 5), strict=True):
        result.add(name, values, paper)
    result.notes.append(note_order(names, [statistics.fmean(values) for values in mious]))
    return result
