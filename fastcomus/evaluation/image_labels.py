"""Scores of clusters against labels of whole images (the paper's Table 12): accuracy, NMI and ARI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcomus.errors import InputError
from fastcomus.evaluation.bootstrap import Interval, compute_percentile_interval, resample_weights
from fastcomus.evaluation.matching import match_majority
from fastcomus.evaluation.truth.truth import ImageLabels


@dataclass(frozen=True)
class LabelEvaluation:
    """Scores of the clusters of images.

    Attributes:
        accuracy: Share of the images whose cluster is matched to their class, one to one (Hungarian), in [0, 1].
        majority_accuracy: The same with each cluster matched to the class that most of its images have.
        nmi: Normalised mutual information (arithmetic mean), in [0, 1].
        ari: Adjusted Rand index, in [-0.5, 1].
        classes: Names in label order.
        images: Number of images scored.
        empty: Number of those in which no object was found. They count as wrong in both accuracies, and as one more
            cluster in `nmi` and `ari`.
        missing: Number of images that have a label but no class map.
        assignment: The class of each cluster label 0 .. k under `accuracy`; None for a cluster without one, and for 0.
        fitted_on: As in `class_maps.Evaluation`.
        intervals: 95 % bootstrap intervals of "accuracy" and "majority_accuracy"; {} without.
        cluster_names: As in `class_maps.Evaluation`.
    """

    accuracy: float
    majority_accuracy: float
    nmi: float
    ari: float
    classes: tuple[str, ...]
    images: int
    empty: int
    missing: int
    assignment: tuple[str | None, ...]
    fitted_on: int
    intervals: dict[str, Interval]
    cluster_names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for strict JSON."""
        return {
            **vars(self),
            "classes": list(self.classes),
            "assignment": list(self.assignment),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "cluster_names": list(self.cluster_names),
        }


def find_image_cluster(class_map: np.ndarray) -> int:
    """Find the label that most object pixels of a class map (H, W) have: the lowest of equals, 0 without object."""
    counts = np.bincount(class_map.ravel(), minlength=2)
    counts[0] = 0
    return int(counts.argmax())


def evaluate_labels(
    clusters: Mapping[str, int],
    truth: ImageLabels,
    n_clusters: int,
    fitted_on: tuple[Mapping[str, int], ImageLabels] | None = None,
    *,
    bootstrap: int = 0,
    seed: int = 0,
) -> LabelEvaluation:
    """Match clusters to classes and score them.

    Args:
        clusters: Image name -> label in [0, n_clusters], 0 for none (`find_image_cluster`); images without a true
            label are passed over.
        truth: The true class of every image.
        n_clusters: Highest cluster label.
        fitted_on: Clusters and labels of other images that the matchings are fitted on.
        bootstrap: How often the images are drawn again for an interval, 0 for none; see `class_maps.evaluate`.
        seed: Of the draws.

    Raises:
        InputError: No image has both a cluster and a label.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    found, true = _pair_labels(clusters, truth)
    shape = (n_clusters + 1, len(truth.classes))
    fitting = _tabulate_counts(*_pair_labels(*fitted_on), shape) if fitted_on else _tabulate_counts(found, true, shape)
    matchings = {"accuracy": _match_one_to_one(fitting), "majority_accuracy": _match_by_majority(fitting)}
    one_to_one = matchings["accuracy"]
    intervals = {}
    if bootstrap:
        drawn: dict[str, list[float]] = {"accuracy": [], "majority_accuracy": []}
        for weights in resample_weights(len(found), bootstrap, seed):
            counts = _tabulate_counts(found, true, shape, weights)
            drawn["accuracy"].append(_compute_share(counts, one_to_one if fitted_on else _match_one_to_one(counts)))
            drawn["majority_accuracy"].append(
                _compute_share(counts, matchings["majority_accuracy"] if fitted_on else _match_by_majority(counts))
            )
        intervals = {name: compute_percentile_interval(values) for name, values in drawn.items()}
    counts = _tabulate_counts(found, true, shape)
    return LabelEvaluation(
        accuracy=_compute_share(counts, matchings["accuracy"]),
        majority_accuracy=_compute_share(counts, matchings["majority_accuracy"]),
        nmi=float(normalized_mutual_info_score(true, found)),
        ari=float(adjusted_rand_score(true, found)),
        classes=truth.classes,
        images=len(found),
        empty=int((found == 0).sum()),
        missing=len(truth.labels) - len(found),
        assignment=tuple(truth.classes[c] if c >= 0 else None for c in one_to_one),
        fitted_on=len(_pair_labels(*fitted_on)[0]) if fitted_on else 0,
        intervals=intervals,
    )


def compute_object_accuracy(labels: np.ndarray, truth_labels: np.ndarray) -> float:
    """Compute the share, in [0, 1], of objects in the right cluster under the best one-to-one matching (Hungarian).

    Args:
        labels: (N,) integers, the cluster of each object, N >= 1; negative ones are noise and count as wrong.
        truth_labels: (N,) integers or strings, the class of each object.
    """
    from scipy.optimize import linear_sum_assignment

    assert labels.shape == truth_labels.shape and labels.ndim == 1 and labels.size > 0
    clustered = labels >= 0
    clusters, rows = np.unique(labels[clustered], return_inverse=True)
    classes, columns = np.unique(truth_labels[clustered], return_inverse=True)
    counts = _tabulate_counts(rows, columns, (len(clusters), len(classes)))
    return int(counts[linear_sum_assignment(counts, maximize=True)].sum()) / labels.size


def _pair_labels(clusters: Mapping[str, int], truth: ImageLabels) -> tuple[np.ndarray, np.ndarray]:
    """Cluster label and class index of every image that has both, (N,) int64 each."""
    both = [name for name in truth.labels if name in clusters]
    if not both:
        raise InputError(
            f"None of the {len(truth.labels)} images with a label in {truth.place} has a class map; "
            "predict these images first."
        )
    return np.array([clusters[name] for name in both]), np.array([truth.labels[name] for name in both])


def _tabulate_counts(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], weights: np.ndarray | int = 1
) -> np.ndarray:
    counts = np.zeros(shape, np.int64)
    np.add.at(counts, (rows, columns), weights)
    return counts


def _match_one_to_one(counts: np.ndarray) -> np.ndarray:
    """Class of each cluster label such that most images are matched, (k + 1,); -1 for none, and for label 0."""
    from scipy.optimize import linear_sum_assignment

    clusters, classes = linear_sum_assignment(counts[1:], maximize=True)
    class_of_cluster = np.full(len(counts), -1, np.int64)
    class_of_cluster[clusters + 1] = np.where(counts[clusters + 1, classes] > 0, classes, -1)
    return class_of_cluster


def _match_by_majority(counts: np.ndarray) -> np.ndarray:
    class_of_cluster = match_majority(counts).class_of_cluster.copy()
    class_of_cluster[0] = -1
    return class_of_cluster


def _compute_share(counts: np.ndarray, class_of_cluster: np.ndarray) -> float:
    matched = np.flatnonzero(class_of_cluster >= 0)
    return int(counts[matched, class_of_cluster[matched]].sum()) / int(counts.sum())
