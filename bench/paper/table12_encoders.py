"""Table 12: accuracy of clustering with different encoders on subsets of the classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from bench.paper.experiment import Experiment
from bench.paper.result import Result, extract_reason
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.errors import InputError
from fastcomus.evaluation.image_labels import compute_object_accuracy

NEEDS = "--data folders:DIR, voc:PATH@val or a folder; encoders whose weights are not here are named."
SEEDS = 3
ENCODERS = ("efficientnet-lite0", "vit_small_patch8_224.dino", "vit_base_patch14_dinov2.lvd142m", "resnet50.tv_in1k")
SUBSETS = (5, 10, 0)  # classes with most objects; 0: all


def measure(experiment: Experiment) -> Result:
    columns = ("encoder", "classes", "accuracy", "NMI", "ARI", "accuracy, k-means")
    result = Result(f"Objects in the right cluster (Hungarian), {experiment.seeds} seeds", columns)
    for encoder in ENCODERS:
        try:
            run = experiment.run(f"encoder-{encoder}", encoder=encoder)
        except InputError as error:
            result.notes.append(f"{encoder}: {extract_reason(error)}.")
            continue
        rows, classes = experiment.read_rows(run), experiment.find_object_classes(run)
        by_size = np.argsort(-np.bincount(classes[classes >= 0]), kind="stable")
        for count in SUBSETS:
            k = min(count or experiment.k, experiment.k)
            chosen = np.isin(classes, by_size[:k])
            spectral, plain = (
                _compute_labels(experiment, rows[chosen], k, method) for method in ("spectral", "kmeans")
            )
            true = classes[chosen]
            result.add(
                encoder,
                k,
                [compute_object_accuracy(labels, true) for labels in spectral],
                [float(normalized_mutual_info_score(true, labels)) for labels in spectral],
                [float(adjusted_rand_score(true, labels)) for labels in spectral],
                [compute_object_accuracy(labels, true) for labels in plain],
            )
    result.notes.append("Subsets: the classes with most objects. An object has its image's main class.")
    return result


def _compute_labels(experiment: Experiment, rows: np.ndarray, k: int, method: str) -> list[np.ndarray]:
    config = replace(experiment.cluster_config, k=k, method=method)
    seeds = range(experiment.seeds)
    return [cluster_embeddings(rows, config, seed, experiment.backend).clusters.labels for seed in seeds]
