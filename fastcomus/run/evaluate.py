"""`evaluate`: score the class maps of an iteration against ground truth (step 11)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.clusters.named_masks import ClassMaps
from fastcomus.errors import InputError
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.evaluation.class_maps import evaluate as evaluate_maps
from fastcomus.evaluation.image_labels import LabelEvaluation, evaluate_labels, find_image_cluster
from fastcomus.evaluation.pair_counts import PairCounts, count_pairs
from fastcomus.evaluation.truth.read import make_fitting_source, read_truth
from fastcomus.evaluation.truth.source import parse_source
from fastcomus.evaluation.truth.truth import ImageLabels, Truth
from fastcomus.progress import count, show_progress
from fastcomus.run.contents import select_class_maps
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

log = logging.getLogger("fastcomus")


@stage(writes=False)  # but one file, which is whole or absent
def evaluate(
    at: Workplace,
    truth: Path | str,
    classes: Path | str,
    iteration: int | None,
    *,
    fit_on: Path | str,
    bootstrap: int,
) -> Evaluation | LabelEvaluation:
    """Score the class maps of an iteration and store the scores in evaluation/; see `Run.evaluate`."""
    maps, _ = select_class_maps(at, iteration)
    named = Path(classes) if classes else None
    evaluation = _score(maps, str(truth), named, str(fit_on), bootstrap, at)
    if maps.names.given:
        evaluation = replace(evaluation, cluster_names=maps.names.classes)
    of_masks = (maps.folder.read_manifest(f"iteration-{maps.iteration}") or {}).get("fingerprint")
    maps.folder.write_json(
        f"evaluation/iteration-{maps.iteration}.json", {**evaluation.to_json(), "fingerprint": of_masks}
    )
    count(images=evaluation.images, missing=evaluation.missing)
    return evaluation


def _score(
    maps: ClassMaps, truth: str, classes: Path | None, fit_on: str, bootstrap: int, at: Workplace
) -> Evaluation | LabelEvaluation:
    """Match clusters to classes and score them; the images of `fit_on` and of `truth` must differ."""
    if bootstrap < 0:
        raise InputError(f"--bootstrap must be 0 or more; got {bootstrap}.")
    source = parse_source(truth)
    scored, fitting = read_truth(source, classes, maps.images), None
    if fit_on:
        fitting = read_truth(make_fitting_source(source, fit_on), classes, maps.images)
        shared = _list_images(scored) & _list_images(fitting)
        if shared:
            raise InputError(
                f"--fit-on {fit_on} shares {len(shared)} images with --truth {truth}, {min(shared)} for instance; "
                "fit the matching on others."
            )
    _tell_unmatched(maps.images, scored)
    if isinstance(scored, ImageLabels):
        clusters = _read_image_clusters(maps, scored)
        fitted = (_read_image_clusters(maps, fitting), fitting) if isinstance(fitting, ImageLabels) else None
        return evaluate_labels(clusters, scored, maps.k, fitted, bootstrap=bootstrap, seed=at.config.seed)
    fitted_counts = _count_pairs(maps, fitting, False, at.backend) if isinstance(fitting, Truth) else None
    counts = _count_pairs(maps, scored, bool(bootstrap), at.backend)
    evaluation = evaluate_maps(counts, fitted_counts, bootstrap=bootstrap, seed=at.config.seed)
    if counts.object_or_not:
        log.info("evaluate: the masks in %s tell only object from background; every cluster counts as object", truth)
    if absent := evaluation.list_absent_classes():
        log.info("evaluate: no scored mask has %s", _shorten(absent))
    return evaluation


def _tell_unmatched(images: Sequence[str], truth: Truth | ImageLabels) -> None:
    """Say how many images have no truth, and how many truths no image."""
    known = _list_images(truth)
    if without := [name for name in images if name not in known]:
        log.info(
            "evaluate: %d of the %d images of this run have no truth, %s for instance, and are not scored",
            len(without), len(images), without[0],
        )  # fmt: skip
    others = sorted(known - set(images))
    if isinstance(truth, Truth):
        others += [str(file.relative_to(truth.place)) for file in truth.list_others()]
    if others:
        log.info("evaluate: %d truths belong to no image of this run, %s for instance", len(others), others[0])


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:8]) + f" and {len(names) - 8} more classes" * (len(names) > 8)


def _list_images(truth: Truth | ImageLabels) -> set[str]:
    return set(truth.files if isinstance(truth, Truth) else truth.labels)


def _count_pairs(maps: ClassMaps, truth: Truth, keep_images: bool, backend: Backend) -> PairCounts:
    present = maps.select_present(list(truth.files))
    with show_progress("evaluate", len(present), "images") as advance:
        return count_pairs(
            present,
            maps.read,
            truth,
            maps.k,
            backend,
            workers=maps.workers,
            keep_images=keep_images,
            on_image=advance,
        )


def _read_image_clusters(maps: ClassMaps, truth: ImageLabels) -> dict[str, int]:
    present = maps.select_present(list(truth.labels))
    found = read_ahead(lambda name: find_image_cluster(maps.read(name)), present, maps.workers)
    with show_progress("evaluate", len(present), "images") as advance:
        clusters = {}
        for name, cluster in zip(present, found, strict=True):
            clusters[name] = cluster
            advance(1)
        return clusters
