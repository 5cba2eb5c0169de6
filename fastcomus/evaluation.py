"""Step 11: class maps against truth. One confusion matrix, two matchings of clusters to classes, IoU.

As in the paper, background takes part: k + 1 cluster labels (0 background) are matched to C + 1 classes
(0 background), pixels are pooled over the data set, and void truth (255) is ignored.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from fastcomus.datasets import MAX_CLASSES, VOID, Truth, read_mask
from fastcomus.errors import InputError

DISCOVERED_IOU = 0.2  # the paper calls a class discovered from here on


@dataclass(frozen=True)
class Matching:
    """`class_of_cluster`: (k + 1,) int64, the class of each cluster label, -1 where it is matched to none."""

    class_of_cluster: np.ndarray


@dataclass(frozen=True)
class Score:
    """Fractions in [0, 1].

    `miou`: mean of `per_class` over the classes that the truth has, background included.
    `per_class`: IoU in class order; NaN for a class that the truth does not have.
    `pixel_accuracy`: share of the pixels that are not void whose cluster is matched to their class.
    `discovered`: number of classes of IoU >= 0.2, background included (the paper counts among 81 for COCO).
    `assignment`: the class index of each cluster label 0 .. k, None for a cluster matched to no class.
    """

    miou: float
    per_class: tuple[float, ...]
    pixel_accuracy: float
    discovered: int
    assignment: tuple[int | None, ...]


@dataclass(frozen=True)
class Evaluation:
    """Both matchings of one set of class maps.

    `classes`: names in label order, background first.
    `images`: number of images scored. `missing`: images that have truth but came without a class map.
    `foreground_iou`: IoU of object-or-not (label > 0 on both sides, no matching), pixels pooled.
    `mean_foreground_iou`: the same per image, averaged over the images that have an object on either side.
        Both are NaN where no image has one.
    """

    hungarian: Score
    majority: Score
    classes: tuple[str, ...]
    images: int
    missing: int
    foreground_iou: float
    mean_foreground_iou: float

    def to_json(self) -> dict[str, Any]:
        """A dictionary that strict JSON can hold: NaN is None, classes go by name."""
        return {
            "hungarian": _score_to_json(self.hungarian, self.classes),
            "majority": _score_to_json(self.majority, self.classes),
            "classes": list(self.classes),
            "images": self.images,
            "missing": self.missing,
            "foreground_iou": _none_if_nan(self.foreground_iou),
            "mean_foreground_iou": _none_if_nan(self.mean_foreground_iou),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Evaluation":
        """The inverse of `to_json`."""
        classes = tuple(content["classes"])
        return cls(
            hungarian=_score_from_json(content["hungarian"], classes),
            majority=_score_from_json(content["majority"], classes),
            classes=classes,
            images=content["images"],
            missing=content["missing"],
            foreground_iou=_nan_if_none(content["foreground_iou"]),
            mean_foreground_iou=_nan_if_none(content["mean_foreground_iou"]),
        )


def evaluate(class_maps: Iterable[tuple[str, np.ndarray]], truth: Truth, n_clusters: int) -> Evaluation:
    """Score class maps in one pass, holding one image at a time.

    `class_maps`: (image name, (H, W) integer labels: 0 background, c + 1 for cluster c), each image once;
        images without truth are passed over.
    `n_clusters`: k; the labels lie in [0, k].

    Raises InputError when no image with truth comes, when sizes differ, when a label lies outside the
    clusters or the classes, or when the truth is void everywhere.
    """
    n_classes = (len(truth.classes) or MAX_CLASSES) - 1
    confusion = np.zeros((n_clusters + 1, n_classes + 1), np.int64)
    foreground_ious: list[float] = []
    unseen = set(truth.masks)
    for name, class_map in class_maps:
        if name not in truth.masks:
            continue
        assert name in unseen, f"{name} came twice"
        unseen.remove(name)
        try:
            of_image = confusion_matrix(class_map, read_mask(truth.masks[name]), n_clusters, n_classes)
        except InputError as error:
            raise InputError(f"{name} against {truth.masks[name]}: {error}") from error
        confusion += of_image
        foreground_ious.append(_foreground_iou(of_image))

    if not foreground_ious:
        raise InputError(
            f"None of the {len(truth.masks)} images with truth in {truth.folder} has a class map; "
            "predict these images first."
        )
    if not confusion.any():
        raise InputError(f"The masks in {truth.folder} are void ({VOID}) everywhere; nothing can be scored.")
    classes = truth.classes or _numbered_classes(confusion)
    confusion = confusion[:, : len(classes)]
    defined = [iou for iou in foreground_ious if not math.isnan(iou)]
    return Evaluation(
        hungarian=score(confusion, match_hungarian(confusion)),
        majority=score(confusion, match_majority(confusion)),
        classes=classes,
        images=len(foreground_ious),
        missing=len(unseen),
        foreground_iou=_foreground_iou(confusion),
        mean_foreground_iou=statistics.fmean(defined) if defined else math.nan,
    )


def confusion_matrix(predicted: np.ndarray, truth: np.ndarray, n_clusters: int, n_classes: int) -> np.ndarray:
    """Pixel counts, (n_clusters + 1, n_classes + 1) int64: cluster label by class, void pixels left out.

    `predicted`: (H, W) integers in [0, n_clusters].
    `truth`: (H, W) integers in [0, n_classes], or 255 (void). `n_classes` leaves out background; at most 254.

    Raises InputError when the sizes differ or a label lies outside its range.
    """
    assert n_classes < MAX_CLASSES, n_classes
    if predicted.shape != truth.shape:
        raise InputError(
            f"The class map is {_size(predicted)} pixels and the truth {_size(truth)} (width x height); "
            "give masks of the images' own size."
        )
    if predicted.size == 0:
        return np.zeros((n_clusters + 1, n_classes + 1), np.int64)
    for labels, highest, owner in ((predicted, n_clusters, "class map"), (truth, VOID, "truth")):
        if labels.min() < 0 or labels.max() > highest:
            wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
            raise InputError(_label_outside(owner, wrong, n_clusters if owner == "class map" else n_classes))
    # A column for each of the 256 labels: void and labels above the classes come out of the same count.
    n_columns = VOID + 1
    pairs = predicted.astype(np.int64).ravel()
    pairs *= n_columns
    pairs += truth.ravel()
    counts = np.bincount(pairs, minlength=(n_clusters + 1) * n_columns).reshape(n_clusters + 1, n_columns)
    beyond = np.flatnonzero(counts[:, n_classes + 1 : VOID].any(axis=0))
    if beyond.size:
        raise InputError(_label_outside("truth", n_classes + 1 + int(beyond[-1]), n_classes))
    return counts[:, : n_classes + 1].astype(np.int64)


def match_hungarian(confusion: np.ndarray) -> Matching:
    """One to one, with the highest sum of IoU; `confusion`: (k + 1, C + 1) counts, k and C may differ.

    A cluster that shares no pixel with the class left for it is matched to none: the scores are the same, and
    the assignment says nothing that the pixels do not.
    """
    union = confusion.sum(axis=1, keepdims=True) + confusion.sum(axis=0, keepdims=True) - confusion
    iou = confusion / np.maximum(union, 1)
    clusters, classes = linear_sum_assignment(iou, maximize=True)
    class_of_cluster = np.full(len(confusion), -1, np.int64)
    class_of_cluster[clusters] = np.where(confusion[clusters, classes] > 0, classes, -1)
    return Matching(class_of_cluster)


def match_majority(confusion: np.ndarray) -> Matching:
    """Each cluster to the class that most of its pixels have, the lowest of equals; an empty one to none."""
    return Matching(np.where(confusion.any(axis=1), confusion.argmax(axis=1), -1).astype(np.int64))


def score(confusion: np.ndarray, matching: Matching) -> Score:
    """IoU of each class with the union of the clusters matched to it.

    `confusion`: (k + 1, C + 1) counts, not all zero. Pixels of a cluster matched to no class are missed by
    their true class and claimed by none; a class without a cluster has IoU 0.
    """
    n_classes = confusion.shape[1]
    class_of_cluster = matching.class_of_cluster
    matched = class_of_cluster >= 0
    merged = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(merged, class_of_cluster[matched], confusion[matched])
    hits = merged.diagonal()
    in_truth = confusion.sum(axis=0)
    union = merged.sum(axis=1) + in_truth - hits
    # `math.nan` itself, not NumPy's: the same object compares equal inside tuples, so scores can be compared.
    per_class = tuple(int(h) / int(u) if n > 0 else math.nan for h, u, n in zip(hits, union, in_truth, strict=True))
    present = [iou for iou in per_class if not math.isnan(iou)]
    return Score(
        miou=statistics.fmean(present),
        per_class=per_class,
        pixel_accuracy=int(hits.sum()) / int(in_truth.sum()),
        discovered=sum(iou >= DISCOVERED_IOU for iou in present),
        assignment=tuple(int(c) if c >= 0 else None for c in class_of_cluster),
    )


def object_accuracy(labels: np.ndarray, truth_labels: np.ndarray) -> float:
    """Share of objects in the right cluster, in [0, 1], under the best one-to-one matching (Hungarian).

    `labels`: (N,) integers, the cluster of each object; negative ones are noise and count as wrong.
    `truth_labels`: (N,) integers or strings, the class of each object. Any values; N >= 1.
    """
    assert labels.shape == truth_labels.shape and labels.ndim == 1 and labels.size > 0
    clustered = labels >= 0
    clusters, rows = np.unique(labels[clustered], return_inverse=True)
    classes, columns = np.unique(truth_labels[clustered], return_inverse=True)
    counts = np.zeros((len(clusters), len(classes)), np.int64)
    np.add.at(counts, (rows, columns), 1)
    return int(counts[linear_sum_assignment(counts, maximize=True)].sum()) / labels.size


def format_table(evaluation: Evaluation) -> Table:
    """Both matchings side by side, in percent: a row per class, then the summary."""
    both = (evaluation.hungarian, evaluation.majority)
    table = Table(title=f"{evaluation.images} images, IoU in %", title_justify="left")
    table.add_column("class")
    table.add_column("Hungarian", justify="right")
    table.add_column("majority", justify="right")
    for index, name in enumerate(evaluation.classes):
        table.add_row(escape(name), *(_percent(one.per_class[index]) for one in both))
    table.add_section()
    table.add_row("mIoU", *(_percent(one.miou) for one in both))
    table.add_row("pixel accuracy", *(_percent(one.pixel_accuracy) for one in both))
    table.add_row(f"classes of IoU >= {DISCOVERED_IOU:.0%}", *(str(one.discovered) for one in both))
    table.add_section()
    # No matching enters here, so one number serves both columns.
    table.add_row("foreground IoU, pooled", *([_percent(evaluation.foreground_iou)] * 2))
    table.add_row("foreground IoU, mean of images", *([_percent(evaluation.mean_foreground_iou)] * 2))
    if evaluation.missing:
        table.caption = f"{evaluation.missing} images with truth have no class map and are not scored."
    return table


def _foreground_iou(confusion: np.ndarray) -> float:
    union = int(confusion.sum() - confusion[0, 0])
    return int(confusion[1:, 1:].sum()) / union if union else math.nan


def _numbered_classes(confusion: np.ndarray) -> tuple[str, ...]:
    highest = int(np.flatnonzero(confusion.any(axis=0))[-1])
    return ("background", *(f"class {label}" for label in range(1, highest + 1)))


def _size(labels: np.ndarray) -> str:
    return " x ".join(str(length) for length in reversed(labels.shape))


def _label_outside(owner: str, label: int, highest: int) -> str:
    if owner == "truth":
        return (
            f"The truth has the label {label} where the classes end at {highest} (and {VOID} is void); "
            "give a classes file with a line for every label, background first."
        )
    return f"The class map has the label {label} where k = {highest} allows 0 to {highest}; predict again."


def _score_to_json(one: Score, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "miou": one.miou,
        "per_class": {name: _none_if_nan(iou) for name, iou in zip(classes, one.per_class, strict=True)},
        "pixel_accuracy": one.pixel_accuracy,
        "discovered": one.discovered,
        "assignment": [None if index is None else classes[index] for index in one.assignment],
    }


def _score_from_json(content: dict[str, Any], classes: tuple[str, ...]) -> Score:
    return Score(
        miou=content["miou"],
        per_class=tuple(_nan_if_none(content["per_class"][name]) for name in classes),
        pixel_accuracy=content["pixel_accuracy"],
        discovered=content["discovered"],
        assignment=tuple(None if name is None else classes.index(name) for name in content["assignment"]),
    )


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan_if_none(value: float | None) -> float:
    return math.nan if value is None else value
