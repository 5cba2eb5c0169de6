"""Class maps against true masks: counted image by image in parallel, then matched and scored."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from fastcomus.backends.interface import Backend
from fastcomus.backends.read_ahead import read_ahead
from fastcomus.errors import InputError
from fastcomus.evaluation.bootstrap import Interval, compute_percentile_interval, resample_weights
from fastcomus.evaluation.confusion import compute_confusion_matrix
from fastcomus.evaluation.matching import (
    Matching,
    Score,
    match_hungarian,
    match_majority,
    replace_nan,
    restore_nan,
    score,
)
from fastcomus.evaluation.truth.truth import MAX_CLASSES, VOID, Truth

_MATCHINGS = {"hungarian": match_hungarian, "majority": match_majority}
_WITH_INTERVAL = ("miou", "pixel_accuracy")


@dataclass(frozen=True)
class PairCounts:
    """What all later numbers come from.

    `confusion`: (k + 1, C + 1) int64, pixels by cluster label and class, pooled; C + 1 = 255 without class names.
    `classes`: the names, or () without.
    `foreground_ious`: object-or-not of every image, NaN where neither side has an object.
    `missing`: images that have truth but came without a class map.
    `class_shares`: (C + 1,) float64, the share of an image that a class takes, averaged over the images that have it;
        void does not count; NaN for a class that none has.
    `per_image`: (images, (k + 1)(C + 1)) int64, the matrix of each image as a row, or None. It is sparse: some 12
        bytes for each pair of labels that meets in an image, hundreds of bytes an image.
    """

    confusion: np.ndarray
    classes: tuple[str, ...]
    foreground_ious: tuple[float, ...]
    missing: int
    class_shares: np.ndarray
    per_image: csr_array | None


@dataclass(frozen=True)
class Evaluation:
    """Both matchings of one set of class maps.

    `classes`: names in label order, background first.
    `images`: number of images scored. `missing`: images that have truth but came without a class map.
    `foreground_iou`: IoU of object-or-not (label > 0 on both sides, no matching), pixels pooled.
    `mean_foreground_iou`: the same per image, averaged over the images that have an object on either side.
        Both are NaN where no image has one.
    `fitted_on`: number of other images that the matchings were fitted on; 0: fitted on the scored ones, as the paper
        does.
    `intervals`: 95 % bootstrap interval over images of "miou" and "pixel_accuracy" by matching, {} without.
    `confusion`: (k + 1) rows of C + 1 pixel counts, by cluster label and class. `class_shares`: see `PairCounts`.
    `cluster_names`: what the cluster labels 0 .. k are called; () where they have no names.
    """

    hungarian: Score
    majority: Score
    classes: tuple[str, ...]
    images: int
    missing: int
    foreground_iou: float
    mean_foreground_iou: float
    fitted_on: int
    intervals: dict[str, dict[str, Interval]]
    confusion: tuple[tuple[int, ...], ...]
    class_shares: tuple[float, ...]
    cluster_names: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary that strict JSON can hold: NaN is None, classes go by name."""
        return {
            "hungarian": self.hungarian.to_json(self.classes),
            "majority": self.majority.to_json(self.classes),
            "classes": list(self.classes),
            "images": self.images,
            "missing": self.missing,
            "foreground_iou": replace_nan(self.foreground_iou),
            "mean_foreground_iou": replace_nan(self.mean_foreground_iou),
            "fitted_on": self.fitted_on,
            "intervals": {m: {name: list(ends) for name, ends in of.items()} for m, of in self.intervals.items()},
            "confusion": [list(row) for row in self.confusion],
            "class_shares": [replace_nan(share) for share in self.class_shares],
            "cluster_names": list(self.cluster_names),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Evaluation:
        """The inverse of `to_json`."""
        classes = tuple(content["classes"])
        return cls(
            hungarian=Score.from_json(content["hungarian"], classes),
            majority=Score.from_json(content["majority"], classes),
            classes=classes,
            images=content["images"],
            missing=content["missing"],
            foreground_iou=restore_nan(content["foreground_iou"]),
            mean_foreground_iou=restore_nan(content["mean_foreground_iou"]),
            fitted_on=content["fitted_on"],
            intervals={
                matching: {name: (low, high) for name, (low, high) in of.items()}
                for matching, of in content["intervals"].items()
            },
            confusion=tuple(tuple(row) for row in content["confusion"]),
            class_shares=tuple(restore_nan(share) for share in content["class_shares"]),
            cluster_names=tuple(content.get("cluster_names", ())),
        )


def count_pairs(
    images: Sequence[str],
    read: Callable[[str], np.ndarray],
    truth: Truth,
    n_clusters: int,
    backend: Backend,
    *,
    workers: int = 1,
    keep_images: bool = False,
    on_image: Callable[[int], None] = lambda count: None,
) -> PairCounts:
    """Count in one pass, by `workers` threads that read and count; memory holds a few images, however many there are.

    `images`: names, each once; those without truth are passed over. `read`: image name -> class map, (H, W) integers:
        0 background, c + 1 for cluster c. `n_clusters`: k; the labels lie in [0, k]. `keep_images`: fill `per_image`.

    Raises InputError when no image has truth, when sizes differ, when a label lies outside the clusters or the
    classes, or when the truth is void everywhere.
    """
    n_classes = (len(truth.classes) or MAX_CLASSES) - 1
    scored = [name for name in images if name in truth.files]
    assert len(set(scored)) == len(scored), "an image came twice"
    if not scored:
        raise InputError(
            f"None of the {len(truth.files)} images with truth in {truth.place} has a class map; "
            "predict these images first."
        )

    def count(name: str) -> np.ndarray:
        try:
            return compute_confusion_matrix(read(name), truth.read(name), n_clusters, n_classes, backend)
        except InputError as error:
            raise InputError(f"{name} against {truth.files[name]}: {error}") from error

    total = np.zeros((n_clusters + 1, n_classes + 1), np.int64)
    foreground_ious = []
    shares, having = np.zeros(n_classes + 1), np.zeros(n_classes + 1, np.int64)
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for of_image in read_ahead(count, scored, workers):
        total += of_image
        foreground_ious.append(_compute_foreground_iou(of_image))
        in_truth = of_image.sum(axis=0)
        shares += in_truth / max(1, in_truth.sum())
        having += in_truth > 0
        if keep_images:
            pairs = np.flatnonzero(of_image)
            kept.append((pairs.astype(np.int32), of_image.ravel()[pairs]))
        on_image(1)
    if not total.any():
        raise InputError(f"The masks in {truth.place} are void ({VOID}) everywhere; nothing can be scored.")
    per_image = _stack_rows(kept, total.size) if keep_images else None
    class_shares = np.divide(shares, having, where=having > 0, out=np.full(len(shares), math.nan))
    missing = len(truth.files) - len(scored)
    return PairCounts(total, truth.classes, tuple(foreground_ious), missing, class_shares, per_image)


def evaluate(
    counts: PairCounts, fitted_on: PairCounts | None = None, *, bootstrap: int = 0, seed: int = 0
) -> Evaluation:
    """Match and score.

    `fitted_on`: counts on other images, of the same clusters and classes, that the matchings are fitted on; matching on
        the scored images themselves, the default and the paper's way, flatters. `bootstrap`: how often the images are
        drawn again, with replacement, for an interval; 0 for none. It needs `per_image`. Each draw is matched anew,
        unless the matching comes from other images; a class that a draw lacks is left out of its mean.
    """
    source = counts if fitted_on is None else fitted_on
    classes = counts.classes or _number_classes(counts.confusion + source.confusion)
    confusion, fitting = (one.confusion[:, : len(classes)] for one in (counts, source))
    matchings = {name: match(fitting) for name, match in _MATCHINGS.items()}
    defined = [iou for iou in counts.foreground_ious if not math.isnan(iou)]
    intervals: dict[str, dict[str, Interval]] = {}
    if bootstrap:
        intervals = _compute_intervals(counts, len(classes), matchings if fitted_on else {}, bootstrap, seed)
    return Evaluation(
        hungarian=score(confusion, matchings["hungarian"]),
        majority=score(confusion, matchings["majority"]),
        classes=classes,
        images=len(counts.foreground_ious),
        missing=counts.missing,
        foreground_iou=_compute_foreground_iou(confusion),
        mean_foreground_iou=statistics.fmean(defined) if defined else math.nan,
        fitted_on=len(fitted_on.foreground_ious) if fitted_on else 0,
        intervals=intervals,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        # `math.nan` itself, as in `score`, so that evaluations can be compared.
        class_shares=tuple(
            math.nan if math.isnan(share) else share for share in counts.class_shares[: len(classes)].tolist()
        ),
    )


def _compute_intervals(
    counts: PairCounts, n_labels: int, fitted: dict[str, Matching], draws: int, seed: int
) -> dict[str, dict[str, Interval]]:
    assert counts.per_image is not None, "the counts were not kept by image"
    drawn: dict[str, dict[str, list[float]]] = {m: {name: [] for name in _WITH_INTERVAL} for m in _MATCHINGS}
    for weights in resample_weights(len(counts.foreground_ious), draws, seed):
        confusion = (weights @ counts.per_image).reshape(counts.confusion.shape)[:, :n_labels]
        if not confusion.any():  # void everywhere
            continue
        for matching, match in _MATCHINGS.items():
            scored = score(confusion, fitted.get(matching) or match(confusion))
            for name in _WITH_INTERVAL:
                drawn[matching][name].append(getattr(scored, name))
    return {m: {name: compute_percentile_interval(values) for name, values in of.items()} for m, of in drawn.items()}


def _stack_rows(rows: list[tuple[np.ndarray, np.ndarray]], width: int) -> csr_array:
    ends = np.cumsum([0, *(len(pairs) for pairs, _ in rows)])
    columns, values = (np.concatenate(part) for part in zip(*rows, strict=True))
    return csr_array((values, columns, ends), shape=(len(rows), width))


def _compute_foreground_iou(confusion: np.ndarray) -> float:
    union = int(confusion.sum() - confusion[0, 0])
    return int(confusion[1:, 1:].sum()) / union if union else math.nan


def _number_classes(confusion: np.ndarray) -> tuple[str, ...]:
    highest = int(np.flatnonzero(confusion.any(axis=0))[-1])
    return ("background", *(f"class {label}" for label in range(1, highest + 1)))
