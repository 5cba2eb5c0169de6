"""`assign`: put new objects into the clusters that are there, without clustering again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastcomus.clusters.corrections import fill_centres
from fastcomus.clusters.files import read_clusters, read_eigenmaps, read_names
from fastcomus.config import ClusterConfig, Config
from fastcomus.errors import InputError
from fastcomus.images.listing import Images, find_listed_images
from fastcomus.progress import count
from fastcomus.run.contents import read_clustered_rows, read_clusters_manifest, read_embedding_rows
from fastcomus.run.embed import embed
from fastcomus.run.own_network import restore_saliency
from fastcomus.run.own_objects import is_object_table
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import to_dict, with_settings
from fastcomus.store.embeddings import check_embeddings, read_embeddings
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from fastcomus.clusters.eigenmaps import Eigenmaps
    from fastcomus.clusters.labels import Clusters

log = logging.getLogger("fastcomus")


@stage()
def assign(
    at: Workplace,
    images: Images,
    output: Path | str,
    *,
    embeddings: Path | str,
    masks: Path | str,
    settings: Mapping[str, Any],
) -> Path:
    """Write assigned.parquet, the clusters of new objects; see `Run.assign`."""
    manifest = read_clusters_manifest(at.folder)
    config = with_settings(at.config, {"assign": settings})
    _check_input(config, images, embeddings, masks)
    if manifest.get("graph"):
        raise InputError(
            "these clusters were made on a graph of your own, in which new objects have no links; cluster all objects "
            "together."
        )
    names, rows = read_names(at.folder, manifest), read_clustered_rows(at.folder, manifest)
    target = RunFolder(output or at.folder.path / "assigned")
    if images:
        new_objects, new_rows = _embed_new_images(at, images, masks, target)
    else:
        new_rows = read_embeddings(embeddings)[0]
        new_objects = pa.table({"row": np.arange(len(new_rows))})
    new_rows = check_embeddings(new_rows)
    if len(new_rows) and new_rows.shape[1] != rows.shape[1]:
        raise InputError(
            f"the clustered embeddings have {rows.shape[1]} numbers each and the new ones {new_rows.shape[1]}; "
            "both must come from the same encoder."
        )
    at.remember(config)
    from fastcomus.clusters.assignment import assign_embeddings

    clustered_by = ClusterConfig(**manifest["config"])
    clustered_by = replace(clustered_by, n_neighbors=manifest.get("neighbors", clustered_by.n_neighbors))
    clusters, maps = read_clusters(at.folder), read_eigenmaps(at.folder) if clustered_by.method == "spectral" else None
    clusters = fill_centres(clusters, rows if maps is None else maps.rows)
    if (clusters.labels < 0).any():  # what a person said is no object attracts nothing
        rows, clusters, maps = _drop_rows(clusters.labels >= 0, rows, clusters, maps)
    found = assign_embeddings(
        new_rows,
        rows,
        clusters,
        maps,
        clustered_by,
        config.assign.outliers,
        config.seed,
        at.backend,
    )
    table = new_objects
    for name, column in (
        ("cluster", found.labels),
        ("distance", found.distances),
        ("novelty", found.novelty),
        ("is_outlier", found.is_outlier),
    ):
        table = table.append_column(name, pa.array(column))
    if names.given:
        table = table.append_column("name", pa.array([names.get_name(one) for one in found.labels], pa.string()))
    target.write_table("assigned.parquet", table)
    clusters, outliers = len(np.unique(found.labels)), int(found.is_outlier.sum())
    count(objects=len(table), clusters=clusters, outliers=outliers)
    file = target.resolve_file("assigned.parquet")
    log.info("assign: %d objects in %d clusters, %d unlike anything; %s", len(table), clusters, outliers, file)
    return file


def _drop_rows(
    kept: np.ndarray, rows: np.ndarray, clusters: Clusters, maps: Eigenmaps | None
) -> tuple[np.ndarray, Clusters, Eigenmaps | None]:
    parts = {name: getattr(clusters, name)[kept] for name in ("labels", "distances", "is_core")}
    return rows[kept], replace(clusters, **parts), None if maps is None else replace(maps, rows=maps.rows[kept])


def _check_input(config: Config, images: Images, embeddings: Path | str, masks: Path | str) -> None:
    if bool(images) == bool(embeddings):
        raise InputError("give either a folder of images or --embeddings FILE.")
    if is_object_table(config.embed.masks) and images:
        raise InputError(
            "the objects of this run came with embeddings of their own; give those of new objects with --embeddings."
        )
    if bool(config.embed.masks and images) != bool(masks):
        raise InputError(
            "the objects of this run come from masks of your own; give those of the new images with --masks DIR."
            if images and not masks
            else "--masks is for new images of a run whose own objects came from masks; leave it out."
        )


def _embed_new_images(
    at: Workplace, images: Images, masks: Path | str, target: RunFolder
) -> tuple[pa.Table, np.ndarray]:
    """Embed new images as those of this run were; return their objects and embeddings (M, D) float32."""
    found = find_listed_images(images)
    device, config = str(at.backend.device), replace(at.config, embed=restore_saliency(at.config, at.folder))
    new = Workplace(target.path, config.preset, None, device, at.workers, to_dict(config))
    embed(new, found, engine="local", address="", settings={"masks": str(masks)})
    return read_shards(target, ["image", "x0", "y0", "x1", "y1"]), read_embedding_rows(target)
