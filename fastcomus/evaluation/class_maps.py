"""Scores of class maps against true masks: counts of pairs of labels, matched and scored."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from fastcomus.errors import InputError
from fastcomus.evaluation.bootstrap import Interval, compute_percentile_interval, resample_weights
from fastcomus.evaluation.matching import (
    Matching,
    Score,
    match_hungarian,
    match_majority,
    replace_nan,
    restore_nan,
    score,
)
from fastcomus.evaluation.pair_counts import PairCounts, compute_foreground_iou

_MATCHINGS = {"hungarian": match_hungarian, "majority": match_majority}
_WITH_INTERVAL = ("miou", "pixel_accuracy")


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
        object_or_not: Whether the truth tells object from background alone: every cluster counts as object then, and
            both scores are those of that.
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
    object_or_not: bool = False

    def __repr__(self) -> str:
        """Say the mIoU under both matchings."""
        told = f"mIoU {100 * self.hungarian.miou:.1f} % (Hungarian), {100 * self.majority.miou:.1f} % (majority)"
        return f"Evaluation({told}, {self.images} images)"

    def _repr_html_(self) -> str:
        """Show the table of scores in a notebook."""
        both = (self.hungarian, self.majority)
        rows: list[tuple[Any, ...]] = [
            (name, *(one.per_class[index] for one in both)) for index, name in enumerate(self.classes)
        ]
        rows.append(("mIoU", *(one.miou for one in both)))
        head = "<tr><th>IoU in %</th><th>Hungarian</th><th>majority</th></tr>"
        cells = (f"<tr><th>{escape(name)}</th><td>{100 * a:.1f}</td><td>{100 * b:.1f}</td></tr>" for name, a, b in rows)
        return f"<p>{self.images} images</p><table>{head}{''.join(cells)}</table>"

    def list_absent_classes(self) -> list[str]:
        """Return the names of the classes that no scored mask has."""
        return [name for name, share in zip(self.classes, self.class_shares, strict=True) if math.isnan(share)]

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
            "object_or_not": self.object_or_not,
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
            object_or_not=content.get("object_or_not", False),
        )


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

    Returns:
        The scores. Where the truth is object-or-not, nothing is matched: every cluster counts as object.

    Raises:
        InputError: A matching is fitted where the truth is object-or-not.
    """
    if fitted_on is not None and (counts.object_or_not or fitted_on.object_or_not):
        raise InputError("The truth tells only object from background, so no matching is fitted; leave --fit-on out.")
    source = counts if fitted_on is None else fitted_on
    classes = counts.classes or _number_classes(counts.confusion + source.confusion)
    confusion, fitting = (one.confusion[:, : len(classes)] for one in (counts, source))
    matchings = {name: match(fitting) for name, match in _MATCHINGS.items()}
    if counts.object_or_not:
        matchings = dict.fromkeys(_MATCHINGS, Matching(np.minimum(np.arange(len(confusion)), 1)))
    defined = [iou for iou in counts.foreground_ious if not math.isnan(iou)]
    intervals: dict[str, dict[str, Interval]] = {}
    if bootstrap:
        fixed = matchings if fitted_on or counts.object_or_not else {}
        intervals = _compute_intervals(counts, len(classes), fixed, bootstrap, seed)
    return Evaluation(
        hungarian=score(confusion, matchings["hungarian"]),
        majority=score(confusion, matchings["majority"]),
        classes=classes,
        images=len(counts.foreground_ious),
        missing=counts.missing,
        foreground_iou=compute_foreground_iou(confusion),
        mean_foreground_iou=statistics.fmean(defined) if defined else math.nan,
        fitted_on=len(fitted_on.foreground_ious) if fitted_on else 0,
        intervals=intervals,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        # `math.nan` itself and not another NaN, as in `score`, so that evaluations can be compared.
        class_shares=tuple(
            math.nan if math.isnan(share) else share for share in counts.class_shares[: len(classes)].tolist()
        ),
        object_or_not=counts.object_or_not,
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


def _number_classes(confusion: np.ndarray) -> tuple[str, ...]:
    highest = int(np.flatnonzero(confusion.any(axis=0))[-1])
    return ("background", *(f"class {label}" for label in range(1, highest + 1)))
