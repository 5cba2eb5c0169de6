"""Figure 9: IoU of a class against the relative size of its objects, with Spearman's rank correlation."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from bench.paper.experiment import Experiment
from bench.paper.result import Result

NEEDS = "--data voc:PATH@val, coco:PATH@val2017 or a folder."
SEEDS = 1


def measure(experiment: Experiment) -> Result:
    result = Result("IoU of the clusters against object size", ("class", "mean share of the image", "IoU"))
    truth = experiment.masks
    shares: list[list[float]] = [[] for _ in truth.classes]
    for image in truth.files:
        labels = truth.read(image)
        counts = np.bincount(labels.ravel(), minlength=256) / labels.size
        for label in np.flatnonzero(counts[: len(truth.classes)]):
            shares[label].append(float(counts[label]))
    run = experiment.objects
    ious = experiment.score_clusters(run, experiment.cluster_run(run, 0)).hungarian.per_class
    there = [label for label in range(1, len(truth.classes)) if shares[label]]
    sizes = [float(np.mean(shares[label])) for label in there]
    for label, size in sorted(zip(there, sizes, strict=True), key=lambda pair: -pair[1]):
        result.add(truth.classes[label], size, ious[label])
    found = spearmanr(sizes, [ious[label] for label in there])
    result.notes.append(f"Spearman's rho {found.statistic:.3f} (p = {found.pvalue:.2g}) over {len(there)} classes.")
    return result
