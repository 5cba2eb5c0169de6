"""Matching of clusters to classes, one to one or by majority, and the IoU that follows from it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

DISCOVERED_IOU = 0.2  # from which on the paper calls a class discovered


@dataclass(frozen=True)
class Matching:
    """Classes of clusters: `class_of_cluster` (k + 1,) int64, by cluster label, -1 where there is none."""

    class_of_cluster: np.ndarray


@dataclass(frozen=True)
class Score:
    """Scores under one matching, fractions in [0, 1].

    Attributes:
        miou: Mean of `per_class` over the classes that the truth has, background included.
        per_class: IoU in class order; NaN for a class that the truth does not have.
        pixel_accuracy: Share of the pixels that are not void whose cluster is matched to their class.
        discovered: Number of classes of IoU >= 0.2, background included (the paper's Table 3).
        miou_discovered: Mean IoU of these; NaN without any.
        with_cluster: Number of classes of IoU > 0, background included.
        miou_with_cluster: Mean IoU of these; NaN without any.
        assignment: Class index of each cluster label 0 .. k; None for a cluster matched to no class.
    """

    miou: float
    per_class: tuple[float, ...]
    pixel_accuracy: float
    discovered: int
    miou_discovered: float
    with_cluster: int
    miou_with_cluster: float
    assignment: tuple[int | None, ...]

    def to_json(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return a dictionary for strict JSON: None stands for NaN, names for class indices."""
        return {
            "miou": self.miou,
            "per_class": {name: replace_nan(iou) for name, iou in zip(classes, self.per_class, strict=True)},
            "pixel_accuracy": self.pixel_accuracy,
            "discovered": self.discovered,
            "miou_discovered": replace_nan(self.miou_discovered),
            "with_cluster": self.with_cluster,
            "miou_with_cluster": replace_nan(self.miou_with_cluster),
            "assignment": [None if index is None else classes[index] for index in self.assignment],
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], classes: tuple[str, ...]) -> Score:
        """Restore a score from what `to_json` returned."""
        names = ("miou", "pixel_accuracy", "miou_discovered", "miou_with_cluster")
        return cls(
            per_class=tuple(restore_nan(content["per_class"][name]) for name in classes),
            discovered=content["discovered"],
            with_cluster=content["with_cluster"],
            assignment=tuple(None if name is None else classes.index(name) for name in content["assignment"]),
            **{name: restore_nan(content[name]) for name in names},
        )


def match_hungarian(confusion: np.ndarray) -> Matching:
    """Match clusters to classes one to one with the highest sum of IoU (Hungarian method).

    A cluster that shares no pixel with the class left for it is matched to none; this changes no score. `confusion`:
    (k + 1, C + 1) counts; k and C may differ.
    """
    from scipy.optimize import linear_sum_assignment

    union = confusion.sum(axis=1, keepdims=True) + confusion.sum(axis=0, keepdims=True) - confusion
    iou = confusion / np.maximum(union, 1)
    clusters, classes = linear_sum_assignment(iou, maximize=True)
    class_of_cluster = np.full(len(confusion), -1, np.int64)
    class_of_cluster[clusters] = np.where(confusion[clusters, classes] > 0, classes, -1)
    return Matching(class_of_cluster)


def match_majority(confusion: np.ndarray) -> Matching:
    """Match each cluster to the class that most of its pixels have, the lowest of equals; none for an empty cluster."""
    return Matching(np.where(confusion.any(axis=1), confusion.argmax(axis=1), -1).astype(np.int64))


def score(confusion: np.ndarray, matching: Matching) -> Score:
    """Compute the IoU of each class with the union of the clusters matched to it, and the scores derived from these.

    Pixels of a cluster matched to no class count as missed by their true class; a class without a cluster has IoU 0.
    `confusion`: (k + 1, C + 1) counts, not all zero.
    """
    n_classes = confusion.shape[1]
    class_of_cluster = matching.class_of_cluster
    matched = class_of_cluster >= 0
    merged = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(merged, class_of_cluster[matched], confusion[matched])
    hits = merged.diagonal()
    in_truth = confusion.sum(axis=0)
    union = merged.sum(axis=1) + in_truth - hits
    # `math.nan` itself and not another NaN: tuples with the same object in them compare equal.
    per_class = tuple(int(h) / int(u) if n > 0 else math.nan for h, u, n in zip(hits, union, in_truth, strict=True))
    present = [iou for iou in per_class if not math.isnan(iou)]
    discovered = [iou for iou in present if iou >= DISCOVERED_IOU]
    with_cluster = [iou for iou in present if iou > 0]
    return Score(
        miou=statistics.fmean(present),
        per_class=per_class,
        pixel_accuracy=int(hits.sum()) / int(in_truth.sum()),
        discovered=len(discovered),
        miou_discovered=statistics.fmean(discovered) if discovered else math.nan,
        with_cluster=len(with_cluster),
        miou_with_cluster=statistics.fmean(with_cluster) if with_cluster else math.nan,
        assignment=tuple(int(c) if c >= 0 else None for c in class_of_cluster),
    )


def replace_nan(value: float) -> float | None:
    """Return None for NaN, which strict JSON cannot hold."""
    return None if math.isnan(value) else value


def restore_nan(value: float | None) -> float:
    """Return NaN for None; see `replace_nan`."""
    return math.nan if value is None else value
