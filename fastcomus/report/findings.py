"""Contents of a run folder that the report shows."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fastcomus.clusters.labels import Clusters
from fastcomus.config import Config
from fastcomus.errors import InputError, get_first_line
from fastcomus.images.roots import ImageRoot
from fastcomus.report.shown_names import ShownNames
from fastcomus.store.objects_table import decode_mask
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import read_json


@dataclass(frozen=True)
class ShownObjects:
    """The objects of a run on images.

    Attributes:
        root: Where the images lie.
        images: (N,) image of each object.
        boxes: (N, 4) int32 x0, y0, x1, y1 of each object in pixels, half-open.
        masks: A row per object with the columns `mask` (COCO run lengths), `height`, `width` and `score` (the mean
            saliency in it, in [0, 1]).
    """

    root: ImageRoot
    images: tuple[str, ...]
    boxes: np.ndarray
    masks: pa.Table

    def decode_mask(self, row: int) -> np.ndarray:
        """Decode the mask of an object, (H, W) bool."""
        own = self.masks.slice(row, 1).to_pylist()[0]
        return decode_mask(own["mask"], own["height"], own["width"])


@dataclass(frozen=True)
class Findings:
    """A run at its present stage.

    Attributes:
        folder: The run folder.
        config: Settings of the run.
        device: Where it was computed.
        notes: Remarks for the reader, from run.json.
        seconds: Time by the clock of each stage.
        clusters: The clusters.
        clusters_fingerprint: Of the clusters; names are valid for these alone.
        corrected_fingerprint: Of the clusters with all corrections.
        corrected: Rows of the objects that a person spoke of.
        rows: (N, D) float32 embeddings.
        objects: None for a run on embeddings without images.
        image_names: All images that could be read, sorted.
        skipped: Rows of skipped.parquet.
        iterations: Those with class maps.
        names: Names of the clusters.
        images_fingerprint: Of the image files as they are now; "" for a run on embeddings without images.
        first_look: What is shown before the run has clusters of its own; "" for these.
    """

    folder: RunFolder
    config: Config
    device: str
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    clusters: Clusters
    clusters_fingerprint: str
    corrected_fingerprint: str
    corrected: frozenset[int]
    rows: np.ndarray
    objects: ShownObjects | None
    image_names: tuple[str, ...]
    skipped: tuple[dict[str, Any], ...]
    iterations: tuple[int, ...]
    names: ShownNames
    images_fingerprint: str = ""
    first_look: str = ""

    def read_evaluations(self) -> dict[int, dict[str, Any]]:
        """Read the stored scores of every iteration whose masks were evaluated as they are now."""
        scores = {}
        for iteration in self.iterations:
            file = self.folder.resolve_file(f"evaluation/iteration-{iteration}.json")
            of_masks = (self.folder.read_manifest(f"iteration-{iteration}") or {}).get("fingerprint")
            if file.exists() and (found := read_json(file)).get("fingerprint") == of_masks:
                scores[iteration] = found
        return scores

    def read_training_curves(self) -> dict[int, Sequence[dict[str, float]]]:
        """Read the lines of training.csv of every iteration that has any."""
        curves: dict[int, Sequence[dict[str, float]]] = {}
        for iteration in self.iterations:
            file = self.folder.resolve_file(f"iteration-{iteration}/training.csv")
            if file.exists():
                with file.open(encoding="utf-8", newline="") as stream:
                    try:
                        lines = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(stream)]
                    except (TypeError, ValueError) as error:  # a line that was cut off
                        raise InputError(
                            f"{file} is damaged ({get_first_line(error)}); delete it, and its curve is left out."
                        ) from error
                if lines:
                    curves[iteration] = lines
        return curves
