"""Scores of class maps against true masks: counted image by image in parallel, then matched and scored."""

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
    """The counts that all scores are computed from.

    Attributes:
        confusion: (k + 1, C + 1) int64, pixels by cluster label and class, pooled over the images; C + 1 = 255
            without class names.
        classes: The names; () without.
        foreground_ious: IoU of object-or-not of every image, NaN where neither side has an object.
        missing: Number of images that have truth but no class map.
        class_shares: (C + 1,) float64, the mean share of an image that a class takes, over the images that have it
            and without void; NaN for a class that no image has.
        per_image: (images, (k + 1)(C + 1)) int64, the matrix of each image as a row, or None. It is sparse and takes
            about 12 bytes for each pair of labels that meets in an image.
    """

    confusion: np.ndarray
    classes: tuple[str, ...]
    foreground_ious: tuple[float, ...]
    missing: int
    class_shares: np.ndarray
    per_image: csr_array | None


@dataclass(frozen=True)
class Evaluation:
    """Scores of one set of class maps under both matchings.

    Attributes:
        hungarian: Scores with clusters matched to classes one to one.
        majority: Scores with each cluster matched to the class of most of its pixels.
        classes: Names in label order, background first.
        images: Number of images scored.
        missing: Number of images that have truth but no class map.
        foreground_iou: IoU of object-or-not (label > 0 on both sides, no matching), pixels pooled; NaN without object.
        mean_foreground_iou: The same per image, averaged over the images that have an object on either side.
        fitted_on: Number of other images that the matchings were fitted on; 0 where they were fitted on the scored
            images, as in the paper.
        intervals: 95 % bootstrap intervals of "miou" and "pixel_accuracy" by matching; {} without.
        confusion: k + 1 rows of C + 1 pixel counts, by cluster label and class.
        class_shares: See `PairCounts`.
        cluster_names: Names of the cluster labels 0 .. k; () where they have none.
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
        """Return a dictionary for strict JSON: None stands for NaN, names for class indices."""
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
        """Restore an evaluation from what `to_json` returned."""
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
    """Count in one pass how often cluster labels and classes meet; few images are in memory at a time.

    Args:
        images: Names, each once; those without truth are passed over.
        read: Gives the class map of an image by name: (H, W) integers, 0 background, c + 1 for cluster c.
        truth: The true masks.
        n_clusters: k; labels lie in [0, k].
        backend: What counts.
        workers: Number of threads that read and count.
        keep_images: Whether to fill `per_image`, which the bootstrap needs.
        on_image: Called with 1 after every image.

    Raises:
        InputError: No image has truth, the truth is void everywhere, sizes differ, or a label lies outside the
            clusters or the classes.
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
    """Match clusters to classes and score them.

    Args:
        counts: Of the images to score.
        fitted_on: Counts on other images, of the same clusters and classes, that the matchings are fitted on. By
            default they are fitted on the scored images, as in the paper; scores are optimistic then.
        bootstrap: How often the images are drawn again for an interval, 0 for none; needs `per_image`. Each draw is
            matched anew unless `fitted_on` is given; a class that a draw lacks is left out of its mean.
        seed: Of the draws.
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
        # `math.nan` itself and not another NaN, as in `score`, so that evaluations can be compared.
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
