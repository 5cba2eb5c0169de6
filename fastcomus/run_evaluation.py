"""The class maps of a run folder's iteration against truth (step 11)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastcomus.datasets import ImageLabels, Truth, fitting_source, parse_source, read_truth
from fastcomus.errors import InputError
from fastcomus.evaluation import (
    Evaluation,
    LabelEvaluation,
    PairCounts,
    cluster_of_image,
    count_pairs,
    evaluate,
    evaluate_labels,
)
from fastcomus.progress import progress_bar
from fastcomus.read_ahead import read_ahead
from fastcomus.stored_masks import ClassMaps


def evaluate_run(
    maps: ClassMaps, truth: str, classes: Path | None, fit_on: str, bootstrap: int, seed: int
) -> Evaluation | LabelEvaluation:
    """Score `maps` and store the scores as evaluation/iteration-N.json.

    `truth`, `fit_on`: see `datasets.read_truth` and `datasets.fitting_source`; the two must share no image.
    """
    if bootstrap < 0:
        raise InputError(f"--bootstrap must be 0 or more; got {bootstrap}.")
    source = parse_source(truth)
    scored, fitting = read_truth(source, classes, maps.images), None
    if fit_on:
        fitting = read_truth(fitting_source(source, fit_on), classes, maps.images)
        shared = _images(scored) & _images(fitting)
        if shared:
            raise InputError(
                f"--fit-on {fit_on} shares {len(shared)} images with --truth {truth}, {min(shared)} for instance; "
                "fit the matching on others."
            )
    evaluation: Evaluation | LabelEvaluation
    if isinstance(scored, ImageLabels):
        clusters = _clusters(maps, scored)
        fitted = (_clusters(maps, fitting), fitting) if isinstance(fitting, ImageLabels) else None
        evaluation = evaluate_labels(clusters, scored, maps.k, fitted, bootstrap=bootstrap, seed=seed)
    else:
        fitted_counts = _counts(maps, fitting, False) if isinstance(fitting, Truth) else None
        counts = _counts(maps, scored, bool(bootstrap))
        evaluation = evaluate(counts, fitted_counts, bootstrap=bootstrap, seed=seed)
    if maps.names.given:
        evaluation = replace(evaluation, cluster_names=maps.names.classes)
    maps.folder.write_json(f"evaluation/iteration-{maps.iteration}.json", evaluation.to_json())
    return evaluation


def _images(truth: Truth | ImageLabels) -> set[str]:
    return set(truth.files if isinstance(truth, Truth) else truth.labels)


def _counts(maps: ClassMaps, truth: Truth, keep_images: bool) -> PairCounts:
    present = maps.present(list(truth.files))
    with progress_bar("evaluate", len(present), "images") as advance:
        return count_pairs(
            present,
            maps.read,
            truth,
            maps.k,
            maps.backend,
            workers=maps.workers,
            keep_images=keep_images,
            on_image=advance,
        )


def _clusters(maps: ClassMaps, truth: ImageLabels) -> dict[str, int]:
    present = maps.present(list(truth.labels))
    found = read_ahead(lambda name: cluster_of_image(maps.read(name)), present, maps.workers)
    with progress_bar("evaluate", len(present), "images") as advance:
        clusters = {}
        for name, cluster in zip(present, found, strict=True):
            clusters[name] = cluster
            advance(1)
    return clusters
