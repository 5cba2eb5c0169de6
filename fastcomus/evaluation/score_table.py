"""Tables of scores for the terminal, in percent."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from fastcomus.evaluation.bootstrap import LEVEL, Interval
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.evaluation.image_labels import LabelEvaluation
from fastcomus.evaluation.matching import DISCOVERED_IOU


def format_table(evaluation: Evaluation | LabelEvaluation) -> Table:
    """Format scores for the terminal, both matchings side by side: for masks a row per class, then the summary."""
    if isinstance(evaluation, LabelEvaluation):
        return _format_label_table(evaluation)
    if evaluation.object_or_not:
        return _format_object_table(evaluation)
    both = (evaluation.hungarian, evaluation.majority)
    intervals = [evaluation.intervals.get(name, {}) for name in ("hungarian", "majority")]
    table = _start_table(f"{evaluation.images} images, IoU in %", "class")
    if evaluation.cluster_names:
        table.add_column("named")
    for index, name in enumerate(evaluation.classes):
        named = [
            cluster
            for cluster, label in zip(evaluation.cluster_names, evaluation.hungarian.assignment, strict=False)
            if label == index
        ]
        table.add_row(escape(name), *(_format_percent(one.per_class[index]) for one in both), *map(escape, named))
    table.add_section()
    for title, name in (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy")):
        cells = [_with_interval(getattr(one, name), of.get(name)) for one, of in zip(both, intervals, strict=True)]
        table.add_row(title, *cells)
    table.add_row(f"classes of IoU >= {DISCOVERED_IOU:.0%}", *(str(one.discovered) for one in both))
    table.add_row("mean over these", *(_format_percent(one.miou_discovered) for one in both))
    table.add_row("classes of IoU > 0", *(str(one.with_cluster) for one in both))
    table.add_row("mean over those above 0", *(_format_percent(one.miou_with_cluster) for one in both))
    table.add_section()
    # These do not depend on the matching, so both columns show the same number.
    table.add_row("foreground IoU, pooled", *([_format_percent(evaluation.foreground_iou)] * 2))
    table.add_row("foreground IoU, mean of images", *([_format_percent(evaluation.mean_foreground_iou)] * 2))
    table.caption = _make_caption(evaluation, "truth", bool(evaluation.intervals))
    return table


def _format_object_table(evaluation: Evaluation) -> Table:
    table = Table(title=f"{evaluation.images} images, in %", title_justify="left")
    table.add_column("object or not")
    table.add_column("any cluster", justify="right")
    found, intervals = evaluation.hungarian, evaluation.intervals.get("hungarian", {})
    table.add_row("foreground IoU, pooled", _format_percent(evaluation.foreground_iou))
    table.add_row("foreground IoU, mean of images", _format_percent(evaluation.mean_foreground_iou))
    table.add_row("background IoU", _format_percent(found.per_class[0]))
    table.add_row("mIoU", _with_interval(found.miou, intervals.get("miou")))
    table.add_row("pixel accuracy", _with_interval(found.pixel_accuracy, intervals.get("pixel_accuracy")))
    table.caption = _make_caption(evaluation, "truth", bool(evaluation.intervals))
    return table


def _format_label_table(evaluation: LabelEvaluation) -> Table:
    table = _start_table(f"{evaluation.images} images of {len(evaluation.classes)} classes, in %", "")
    cells = [
        _with_interval(getattr(evaluation, name), evaluation.intervals.get(name))
        for name in ("accuracy", "majority_accuracy")
    ]
    table.add_row("accuracy", *cells)
    table.add_row("NMI", *([_format_percent(evaluation.nmi)] * 2))
    table.add_row("ARI", *([_format_percent(evaluation.ari)] * 2))
    table.caption = _make_caption(evaluation, "a label", bool(evaluation.intervals))
    return table


def _start_table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    table.add_column("Hungarian", justify="right")
    table.add_column("majority", justify="right")
    return table


def _make_caption(evaluation: Evaluation | LabelEvaluation, what: str, with_intervals: bool) -> str | None:
    said = []
    if isinstance(evaluation, LabelEvaluation) and evaluation.empty:
        said.append(f"Images in which no object was found, which count as wrong: {evaluation.empty}.")
    if evaluation.missing:
        said.append(f"{evaluation.missing} images with {what} have no class map and are not scored.")
    if evaluation.fitted_on:
        said.append(f"Clusters were matched to classes on {evaluation.fitted_on} other images.")
    if with_intervals:
        said.append(f"In brackets: {LEVEL:.0%} interval over images (bootstrap).")
    if isinstance(evaluation, Evaluation) and evaluation.object_or_not:
        said.append("The truth tells only object from background: every cluster counts as object, none is matched.")
    elif isinstance(evaluation, Evaluation) and evaluation.cluster_names:
        said.append("Named: what the clusters that were matched to the class (Hungarian) are called.")
    return "\n".join(said) or None


def _with_interval(value: float, interval: Interval | None) -> str:
    return _format_percent(value) + (
        f" ({_format_percent(interval[0])} - {_format_percent(interval[1])})" if interval else ""
    )


def _format_percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"
