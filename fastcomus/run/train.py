"""`train`: class maps to a network, to class maps, several times over (steps 9 and 10)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastcomus.clusters.files import read_clusters, read_names
from fastcomus.clusters.shown_tables import write_shown_tables
from fastcomus.config import STAGES, Config
from fastcomus.images.listing import find_listed_images
from fastcomus.images.names import check_names
from fastcomus.images.stamps import stamp_images
from fastcomus.networks.registry import check_name
from fastcomus.progress import count
from fastcomus.run.changed_images import refuse_resized_images, warn_of_changed_images
from fastcomus.run.cluster_masks import write_cluster_masks
from fastcomus.run.contents import (
    ImageSource,
    check_source,
    list_iterations,
    open_image_source,
    read_clusters_manifest,
)
from fastcomus.run.iteration_masks import measure_agreement
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.segmentation.pseudo_masks import select_training_images
from fastcomus.settings import with_settings
from fastcomus.store.masks import get_mask_path
from fastcomus.store.objects_table import read_objects_fingerprint, read_shards
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.segmentation.samples import Sample

log = logging.getLogger("fastcomus")


@stage()
def train(at: Workplace, *, settings: Mapping[str, Any], then: Callable[[], object] | None = None) -> Path:
    """Train the iterations that are not up to date and return the last one's folder; see `Run.train`.

    `then` is called between them by the first process.
    """
    folder = at.folder
    clusters, source = read_clusters_manifest(folder), open_image_source(at)
    config = with_settings(at.config, _sort_by_stage(settings, "train", "predict"))
    check_source(folder, clusters, read_objects_fingerprint(folder))
    if warn_of_changed_images(folder, source.root):
        refuse_resized_images(folder, source.root, config.embed.max_pixels)
    if at.processes.is_first:
        write_cluster_masks(at)
    list_iterations(folder)
    check_name(config.train.backbone)
    sources = [source, *_find_more_images(folder, config)]
    at.remember(config)
    from fastcomus.run.iteration import run_iteration  # only now: it takes seconds

    follows = str((folder.read_manifest("iteration-0") or {})["fingerprint"])
    samples = _select_samples(folder, source)
    count(images=0, masks=0)  # those of iterations that are up to date do not count
    try:
        with at.processes.connect(at.backend.device), folder.writer.release_names():
            for iteration in range(1, (config.train.iterations or (2 if config.train.extend else 1)) + 1):
                if iteration > 1 and then is not None and at.processes.is_first:
                    then()
                follows, samples = run_iteration(iteration, samples, sources, clusters["k"], follows, at)
                count(iterations=1)
                if iteration > 1 and config.train.stop_agreement:
                    agreement = measure_agreement(iteration, sources, at)
                    log.info("iteration-%d: masks agree with those before on %.3f", iteration, agreement)
                    if agreement >= config.train.stop_agreement:
                        break
    finally:  # also when it is interrupted
        if at.processes.is_first:
            write_shown_tables(folder, read_names(folder, clusters))  # with what was named meanwhile
    return folder.path / f"iteration-{iteration}"


def _find_more_images(folder: RunFolder, config: Config) -> list[ImageSource]:
    """Return the images of `extend`, for the iterations after the first one."""
    if not config.train.extend:
        return []
    more = find_listed_images(config.train.extend, config.embed.every_seconds)
    check_names(more.names, folder.path)
    stamp = compute_fingerprint(images=stamp_images(more, more.names, None))
    return [ImageSource(more.root, more.names, "extend", stamp)]


def _select_samples(folder: RunFolder, source: ImageSource) -> list[Sample]:
    """Return the images that the filter lets through, with the class maps of their clusters."""
    from fastcomus.segmentation.samples import Sample

    images, clusters = read_shards(folder, ["image"])["image"], read_clusters(folder)
    kept = clusters.labels >= 0  # what a person said is no object counts for nothing
    shown = images.filter(pa.array(kept)).to_pylist()
    core = select_training_images(shown, clusters.is_core[kept])
    if len(core) < len(set(shown)):
        told = "train: of %d images with an object, the filter lets %d through (cluster --filter); all get masks"
        log.info(told, len(set(shown)), len(core))
    return [Sample(source.root / name, get_mask_path("iteration-0", name)) for name in core]


def _sort_by_stage(settings: Mapping[str, Any], *stages: str) -> dict[str, dict[str, Any]]:
    """Sort settings under the first of `stages` that has them; unknown ones under the first, which reports them."""
    sorted_settings: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for name, value in settings.items():
        owner = next((one for one in stages if name in {f.name for f in fields(STAGES[one])}), stages[0])
        sorted_settings[owner][name] = value
    return sorted_settings
