"""Scores in the report, where there is truth: tables, and the plot of IoU against size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastcomus.report.plots import plot_iou_against_size
from fastcomus.report.shown_names import ShownNames

if TYPE_CHECKING:
    from bokeh.plotting import figure


@dataclass(frozen=True)
class ScoreTable:
    """A table of scores.

    Attributes:
        columns: Titles, one per iteration.
        rows: Names of classes, and a score in [0, 1] or None per column.
        summary: Names of scores, and a value or None per column.
        caption: What was scored, and how.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    summary: tuple[tuple[str, tuple[float | None, ...]], ...]
    caption: str


@dataclass(frozen=True)
class ConfusionTable:
    """For each cluster, the shares of its pixels in each true class.

    Attributes:
        iteration: The iteration that was evaluated.
        classes: Names of the classes, background first.
        rows: For each cluster its name, its number of pixels, and their shares in [0, 1], in the order of `classes`.
    """

    iteration: int
    classes: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[float, ...]], ...]


def build_score_table(evaluations: Mapping[int, dict[str, Any]]) -> ScoreTable | None:
    """Put the scores of every evaluated iteration side by side.

    Args:
        evaluations: Stored scores by iteration.

    Returns:
        None where there are no scores.
    """
    if not evaluations:
        return None
    last = evaluations[max(evaluations)]
    of_images = "hungarian" not in last  # a label per image, no masks
    columns = tuple(f"iteration {iteration}" for iteration in evaluations)
    caption = f"{last['images']} images; clusters matched to classes one to one (Hungarian)"
    caption += f", fitted on {last['fitted_on']} other images." if last["fitted_on"] else " on the same images."
    if last.get("object_or_not"):
        caption = f"{last['images']} images; object or not, every cluster counts as object."
    if of_images:
        names = {"accuracy": "accuracy", "majority_accuracy": "accuracy, by majority", "nmi": "NMI", "ari": "ARI"}
        summary = [(title, tuple(one.get(key) for one in evaluations.values())) for key, title in names.items()]
        return ScoreTable(columns, (), tuple(summary), caption)
    hungarian = [one.get("hungarian", {}) for one in evaluations.values()]
    rows = [(name, tuple(one.get("per_class", {}).get(name) for one in hungarian)) for name in last["classes"]]
    summary = [
        ("mIoU", tuple(one.get("miou") for one in hungarian)),
        ("mIoU, matched by majority", tuple(one.get("majority", {}).get("miou") for one in evaluations.values())),
        ("pixel accuracy", tuple(one.get("pixel_accuracy") for one in hungarian)),
        ("foreground IoU", tuple(one.get("foreground_iou") for one in evaluations.values())),
    ]
    return ScoreTable(columns, tuple(rows), tuple(summary), caption)


def build_confusion_table(evaluations: Mapping[int, dict[str, Any]], names: ShownNames) -> ConfusionTable | None:
    """Tabulate the classes that the pixels of each cluster lie in, of the last evaluated iteration.

    Args:
        evaluations: Stored scores by iteration.
        names: Names of the clusters, for scores that were stored without.

    Returns:
        None where no confusion matrix was stored.
    """
    stored = [(number, one) for number, one in evaluations.items() if one.get("confusion")]
    if not stored:
        return None
    iteration, last = stored[-1]
    called = last.get("cluster_names") or ["background", *map(names.get_label, range(len(last["confusion"]) - 1))]
    rows = []
    for label, counts in enumerate(last["confusion"]):
        total = sum(counts)
        rows.append((called[label], total, tuple(count / total if total else 0.0 for count in counts)))
    return ConfusionTable(iteration, tuple(last["classes"]), tuple(rows))


def plot_class_sizes(evaluations: Mapping[int, dict[str, Any]]) -> figure | None:
    """Plot the IoU of each class but the background against its size.

    Args:
        evaluations: Stored scores by iteration; the last one is shown.

    Returns:
        None where no sizes were stored.
    """
    stored = [one for one in evaluations.values() if one.get("class_shares")]
    if not stored:
        return None
    last = stored[-1]
    ious = [last["hungarian"]["per_class"][name] for name in last["classes"]]
    points = [
        point
        for point in list(zip(last["classes"], last["class_shares"], ious, strict=True))[1:]
        if point[1] and point[2] is not None
    ]
    return plot_iou_against_size(*zip(*points, strict=True)) if points else None
