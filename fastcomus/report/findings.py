"""What a run folder holds, as the report shows it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcomus.clusters.labels import Clusters
from fastcomus.config import Config
from fastcomus.images.roots import ImageRoot
from fastcomus.report.shown_names import ShownNames
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import read_json


@dataclass(frozen=True)
class FoundObjects:
    """The objects of a run with images, one an entry: `images` (N,) names; `boxes` (N, 4) int32 x0, y0, x1, y1 in
    pixels, half-open. `root`: where the images lie."""

    root: ImageRoot
    images: tuple[str, ...]
    boxes: np.ndarray


@dataclass(frozen=True)
class Findings:
    """A run as far as it has come. `rows`: (N, D) float32 embeddings. `objects`: None for clusters of embeddings alone.

    `image_names`: all images that could be read, sorted. `skipped`: rows of skipped.parquet. `iterations`: those with
    class maps. `notes`: what run.json says a reader must know. `clusters_fingerprint`: what names belong to.
    """

    folder: RunFolder
    config: Config
    device: str
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    clusters: Clusters
    clusters_fingerprint: str
    rows: np.ndarray
    objects: FoundObjects | None
    image_names: tuple[str, ...]
    skipped: tuple[dict[str, Any], ...]
    iterations: tuple[int, ...]
    names: ShownNames

    def read_evaluations(self) -> dict[int, dict[str, Any]]:
        """Scores of the iterations that have any, as `evaluate` stored them."""
        return {
            iteration: read_json(file)
            for iteration in self.iterations
            if (file := self.folder.resolve_file(f"evaluation/iteration-{iteration}.json")).exists()
        }

    def read_training_curves(self) -> dict[int, Sequence[dict[str, float]]]:
        """Lines of training.csv of every iteration that has one."""
        curves: dict[int, Sequence[dict[str, float]]] = {}
        for iteration in self.iterations:
            file = self.folder.resolve_file(f"iteration-{iteration}/training.csv")
            if file.exists():
                with file.open(encoding="utf-8", newline="") as stream:
                    lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(stream)]
                if lines:
                    curves[iteration] = lines
        return curves
