"""Figure 8: other clusterings of the objects, and how much of each cluster is filtered."""

from __future__ import annotations

import numpy as np

from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.evaluation.image_labels import compute_object_accuracy

NEEDS = "--data voc:PATH@val, or a folder."
SEEDS = 3
METHODS = {
    "k-means": {"method": "kmeans"},
    "mini-batch k-means": {"method": "minibatch-kmeans"},
    "agglomerative (Ward)": {"method": "agglomerative"},
    "spectral, k-means": {"method": "spectral", "assign": "kmeans"},
    "spectral, k-means on unit rows": {"method": "spectral", "assign": "normalized"},
    "spectral, column-pivoted QR": {"method": "spectral", "assign": "qr"},
}
FILTERS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)


def measure(experiment: Experiment) -> Result:
    columns = ("clustering", "filtered", "mIoU", "object accuracy", "objects kept")
    result = Result(f"Clusterings and filter, {experiment.seeds} seeds", columns)
    run = experiment.objects
    classes = experiment.find_object_classes(run)
    seeds = range(experiment.seeds)
    for name, settings in METHODS.items():
        clustered = [experiment.cluster_run(run, seed, **settings) for seed in seeds]
        mious = [experiment.score_clusters(run, clusters).hungarian.miou for clusters in clustered]
        accuracies = [compute_object_accuracy(clusters.labels, classes) for clusters in clustered]
        result.add(name, "-", mious, accuracies, "all")
    for share in FILTERS:
        clustered = [experiment.cluster_run(run, seed, filter=share) for seed in seeds]
        accuracies = [compute_object_accuracy(one.labels[one.is_core], classes[one.is_core]) for one in clustered]
        kept = f"{int(np.mean([one.is_core.sum() for one in clustered]))}"
        result.add("of the preset", f"{share:.0%}", None, accuracies, kept)
    result.notes.append("Accuracy under a filter is that of the kept objects. The paper: 20 to 40 % is flat.")
    return result
