"""`assign`: put new objects into the clusters that are there, without clustering again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastcomus.clusters.corrections import fill_centres
from fastcomus.clusters.files import read_clusters, read_eigenmaps, read_names
from fastcomus.config import ClusterConfig, Config
from fastcomus.errors import InputError
from fastcomus.images.listing import Images
from fastcomus.progress import count
from fastcomus.run.contents import open_clustered_rows, read_clusters_manifest
from fastcomus.run.earlier_settings import rewrite_cluster_settings
from fastcomus.run.embed import embed, refuse_other_images
from fastcomus.run.own_network import restore_settings
from fastcomus.run.own_objects import is_object_table
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import to_dict, with_settings
from fastcomus.store.columns import make_column, make_text_column
from fastcomus.store.embeddings import fingerprint_embeddings, normalise_rows
from fastcomus.store.objects_table import read_objects_fingerprint, read_shards
from fastcomus.store.row_blocks import RowBlocks, open_object_rows, open_rows
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.clusters.sampled import LinkedRows

log = logging.getLogger("fastcomus")

_STAGE = "links-of-new"  # parts of many rows, gone when all are labelled


@stage()
def assign(
    at: Workplace,
    images: Images,
    output: Path | str,
    *,
    embeddings: Path | str,
    masks: Path | str,
    engine: str = "local",
    address: str = "",
    settings: Mapping[str, Any],
) -> Path:
    """Write assigned.parquet, the clusters of new objects; see `Run.assign`."""
    manifest = read_clusters_manifest(at.folder)
    config, chosen_engine = with_settings(at.config, {"assign": settings}), at.choose_engine(engine, address)
    _check_input(config, images, embeddings, masks)
    if manifest.get("graph"):
        raise InputError(
            "these clusters were made on a graph of your own, in which new objects have no links; cluster all objects "
            "together."
        )
    if images and not manifest["images"]:
        raise InputError(
            "these clusters are of embeddings without images; give those of new objects with --embeddings FILE."
        )
    clusters, names = read_clusters(at.folder), read_names(at.folder, manifest)
    known = open_clustered_rows(at.folder, manifest)
    target = RunFolder(output or at.folder.path / "assigned")
    if images:
        table = _embed_new_images(at, images, masks, target, engine, address)
        new: RowBlocks = open_object_rows(target)
        source = read_objects_fingerprint(target)
    else:
        new, source = open_rows(embeddings), fingerprint_embeddings(embeddings)
        table = pa.table({"row": make_column(np.arange(new.count))})
    _check_width(new, known)
    at.remember(config)
    from fastcomus.clusters.assignment import make_linker
    from fastcomus.clusters.sampled import draw_probes, gather_rows, label_rows
    from fastcomus.run.linking import link_rows

    clustered_by = ClusterConfig(**rewrite_cluster_settings(manifest["config"]))
    clustered_by = replace(clustered_by, n_neighbors=manifest.get("neighbors", clustered_by.n_neighbors))
    maps = read_eigenmaps(at.folder) if clustered_by.method == "spectral" else None
    fitted = np.flatnonzero(clusters.is_fitted)
    rows, clusters = gather_rows(known, fitted), clusters.take(fitted)
    places = rows if maps is None else maps.rows if clustered_by.assign == "kmeans" else normalise_rows(maps.rows)
    clusters = fill_centres(clusters, places)
    if (clusters.labels < 0).any():  # what a person said is no object attracts nothing
        kept = np.flatnonzero(clusters.labels >= 0)
        rows, clusters = rows[kept], clusters.take(kept)
        maps = None if maps is None else replace(maps, placed=maps.rows[kept])
    if len(rows) < 2:
        raise InputError(
            f"assign needs at least 2 objects in clusters, to which new ones are compared; there is {len(rows)}. "
            "Take corrections back with fastcomus correct --undo."
        )
    whole = compute_fingerprint(clusters=manifest["corrected"], new=source, seed=config.seed)
    links: Iterable[LinkedRows] = []
    if new.count:
        some = gather_rows(new, draw_probes(new.count, config.seed))
        linker = make_linker(rows, clustered_by, config.seed, at.backend, some, new.count)
        links = link_rows(at.folder, _STAGE, new, linker, chosen_engine, whole)
    labels, distances = label_rows(new, links, clusters, maps, clustered_by)
    novelty = np.concatenate([np.empty(0, np.float32), *(part.novelty for part in links)])
    found = {"cluster": labels, "distance": distances, "novelty": novelty}
    found["is_outlier"] = found["novelty"] > 1 - config.assign.outliers
    for name, column in found.items():
        table = table.append_column(name, make_column(column))
    if names.given:
        called = make_text_column([names.get_name(cluster) for cluster in range(manifest["k"])])
        table = table.append_column("name", called.take(make_column(labels)))
    target.write_table("assigned.parquet", table)
    at.folder.remove(_STAGE)
    used, outliers = len(np.unique(found["cluster"])), int(found["is_outlier"].sum())
    count(objects=len(table), clusters=used, outliers=outliers)
    file = target.resolve_file("assigned.parquet")
    log.info("assign: %d objects in %d clusters, %d unlike anything; %s", len(table), used, outliers, file)
    return file


def _check_input(config: Config, images: Images, embeddings: Path | str, masks: Path | str) -> None:
    for given in (images, embeddings):
        if isinstance(given, np.ndarray):
            raise InputError("assign takes files; save the array by np.save, and give embeddings='FILE.npy'.")
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


def _check_width(new: RowBlocks, known: RowBlocks) -> None:
    if not new.count:
        return
    widths = [rows.read(0, 1).shape[1] for rows in (known, new)]
    if widths[0] != widths[1]:
        raise InputError(
            f"the clustered embeddings have {widths[0]} numbers each and the new ones {widths[1]}; both must come from "
            "the same encoder."
        )


def _embed_new_images(
    at: Workplace, images: Images, masks: Path | str, target: RunFolder, engine: str, address: str
) -> pa.Table:
    """Embed new images as those of this run were; return their objects."""
    found = at.list_images(images)
    device, config = at.backend.device_name, replace(at.config, embed=restore_settings(at.config, at.folder))
    new = Workplace(target.path, config.preset, None, device, at.workers, to_dict(config), "", at.inference)
    refuse_other_images(new, found, "another --output")
    embed(new, found, engine=engine, address=address, settings={"masks": str(masks)})
    return read_shards(target, ["image", "x0", "y0", "x1", "y1"])
