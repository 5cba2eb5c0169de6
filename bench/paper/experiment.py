"""What all tables share: the data, the objects found in it, clusterings of them, and their scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastcomus.backends.choose import select
from fastcomus.backends.interface import LabelledMasks
from fastcomus.clusters.checks import check_count
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.clusters.labels import Clusters
from fastcomus.config import ClusterConfig
from fastcomus.errors import InputError
from fastcomus.evaluation.class_maps import Evaluation, evaluate
from fastcomus.evaluation.pair_counts import count_pairs
from fastcomus.evaluation.truth import voc
from fastcomus.evaluation.truth.read import read_truth
from fastcomus.evaluation.truth.source import TruthSource, parse_source
from fastcomus.evaluation.truth.truth import ImageLabels, Truth
from fastcomus.images.folder import find_images
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, with_settings
from fastcomus.store.embeddings import check_embeddings, extract_embeddings
from fastcomus.store.masks import get_mask_path, read_class_map
from fastcomus.store.objects_table import decode_mask

WORKERS = 2


class Experiment:
    """`data`: see `__main__`. `work`: folder for run folders. `settings`: over those of `preset`.

    `classes` counts background for masks, and not for labels of images; `k` is the number of object classes.
    """

    def __init__(
        self,
        data: str,
        work: Path,
        *,
        preset: str = "",
        seeds: int = 1,
        device: str = "auto",
        settings: Mapping[str, Any] | None = None,
        trained: Path | None = None,
    ) -> None:
        self.data, self.work, self.seeds, self.trained = data, work, seeds, trained
        kind = data.partition(":")[0]
        self.preset = preset or {"voc": "voc", "coco": "coco", "coco-voc": "voc"}.get(kind, "offline")
        self.settings = dict(settings or {})
        self.backend = select(device)

    # -- data --------------------------------------------------------------------------------------------------

    @cached_property
    def source(self) -> TruthSource:
        if not self.data:
            raise InputError("this needs --data.")
        folder = Path(self.data)
        if not (folder / "JPEGImages").is_dir():
            return parse_source(self.data)
        masks = folder / "SegmentationClassBG"  # void counted as background, where there is such
        masks = masks if masks.is_dir() else folder / "SegmentationClass"
        listed = folder / "objects.txt"
        return TruthSource("masks", masks, "", listed if listed.is_file() else None)

    @cached_property
    def truth(self) -> Truth | ImageLabels:
        names = Path(self.data) / "classes.txt"
        return read_truth(self.source, names if names.is_file() else None, find_images(self._image_folder).names)

    @property
    def masks(self) -> Truth:
        if not isinstance(self.truth, Truth):
            raise InputError(f"this needs masks; {self.data} has labels of images only.")
        return self.truth

    @property
    def k(self) -> int:
        return len(self.truth.classes) - isinstance(self.truth, Truth)

    @cached_property
    def images(self) -> Path:
        """The images that have truth, and no others."""
        if isinstance(self.truth, ImageLabels):
            return self.source.path
        linked = self.work / "images"
        for name in self.truth.files:
            link, image = linked / name, self._image_folder / name
            if not link.exists() and image.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(image.resolve())
        return linked

    @property
    def _image_folder(self) -> Path:
        source = self.source
        if source.kind == "voc":
            year = voc.find_year(source.path, source.split)
            if year is None:
                raise InputError(f"PASCAL VOC in {source.path} has no split {source.split!r}.")
            return year / "JPEGImages"
        if source.kind in ("coco", "coco-voc"):
            return source.path / "images" / source.split
        return source.path if source.kind == "folders" else source.path.parent / "JPEGImages"

    # -- runs --------------------------------------------------------------------------------------------------

    def run(self, name: str, seed: int = 0, **embed: Any) -> Run:
        """A run folder of that name whose objects are embedded; equal objects are found once and copied."""
        settings = {stage: dict(values) for stage, values in self.settings.items() if isinstance(values, Mapping)}
        settings.setdefault("cluster", {}).setdefault("k", self.k)
        folder = self.work / name
        if not embed and name != "objects-run" and not folder.exists():
            found = self.objects.folder.path
            folder.mkdir(parents=True)
            shutil.copy(found / "run.json", folder)
            shutil.copytree(found / "objects", folder / "objects")
        run = Run(folder, preset=self.preset, seed=seed, device=str(self.backend.device), settings=settings)
        run.embed(self.images, **embed)
        return run

    @cached_property
    def objects(self) -> Run:
        return self.run("objects-run")

    @cached_property
    def cluster_config(self) -> ClusterConfig:
        config = with_settings(get_preset_config(self.preset), self.settings).cluster
        return replace(config, k=config.k if "k" in self.settings.get("cluster", {}) else self.k)

    def read_rows(self, run: Run) -> np.ndarray:
        return check_embeddings(extract_embeddings(run.objects()))

    def cluster_run(self, run: Run, seed: int, **changed: Any) -> Clusters:
        """The objects of `run` clustered in memory, with `changed` settings of ClusterConfig."""
        rows = self.read_rows(run)
        config = replace(self.cluster_config, **changed)
        check_count(config, rows)
        return cluster_embeddings(rows, config, seed, self.backend).clusters

    # -- scores ------------------------------------------------------------------------------------------------

    def score_clusters(self, run: Run, clusters: Clusters) -> Evaluation:
        """The class maps of iteration 0 that these clusters would give, never written."""
        table = run.objects().select(["image", "width", "height", "score", "mask"]).to_pylist()
        of_image: dict[str, list[int]] = {}
        for index, row in enumerate(table):
            of_image.setdefault(row["image"], []).append(index)

        def class_map(image: str) -> np.ndarray:
            rows = sorted(of_image.get(image, []), key=lambda i: (table[i]["score"], i))
            if not rows:
                return np.zeros_like(self.masks.read(image))
            shape = (table[rows[0]]["height"], table[rows[0]]["width"])
            masks = [decode_mask(table[i]["mask"], *shape) for i in rows]
            labelled = LabelledMasks(masks, [int(clusters.labels[i]) for i in rows], shape)
            return self.backend.assemble_masks([labelled])[0]

        return self.score_maps(class_map, len(clusters.sizes))

    def score_maps(self, read: Callable[[str], np.ndarray], k: int) -> Evaluation:
        names = [name for name in self.masks.files if (self.images / name).exists()]
        return evaluate(count_pairs(names, read, self.masks, k, self.backend, workers=WORKERS))

    def score_iteration(self, run: Run, iteration: int) -> Evaluation:
        folder = f"iteration-{iteration}"
        return self.score_maps(lambda image: read_class_map(run.folder, get_mask_path(folder, image)), self.k)

    def find_object_classes(self, run: Run) -> np.ndarray:
        """(N,) the class of each object: its image's label, or the class of most object pixels there; -1 for none."""
        images = run.objects()["image"].to_pylist()
        if isinstance(self.truth, ImageLabels):
            return np.array([self.truth.labels.get(image, -1) for image in images])
        main = {}
        for image in set(images):
            labels = self.truth.read(image)
            labels = labels[(labels > 0) & (labels < 255)]
            main[image] = int(np.bincount(labels).argmax()) if labels.size else -1
        return np.array([main[image] for image in images])
