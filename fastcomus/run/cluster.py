"""`cluster` and `suggest-k`: embeddings to clusters and their class maps (steps 4 to 8)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import check_count, cluster_embeddings, suggest_counts
from fastcomus.clusters.count import SuggestedCounts
from fastcomus.clusters.files import read_clusters, read_names, write_clusters
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.shown_tables import write_shown_tables
from fastcomus.config import Config
from fastcomus.progress import count
from fastcomus.run.carrying import carry_words, note_clusters
from fastcomus.run.contents import (
    read_clusters_manifest,
    read_embedding_rows,
    read_objects_fingerprint,
)
from fastcomus.run.keywords import ClusterOptions
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.embeddings import check_embeddings, read_embeddings
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint
from fastcomus.store.shelf import exchange

log = logging.getLogger("fastcomus")

Embeddings = Path | ArrayLike | None


@stage()
def cluster(at: Workplace, embeddings: Embeddings, *, settings: Mapping[str, Any]) -> Clusters:
    """Cluster the objects, or rows of the caller's own; see `Run.cluster`."""
    config = with_settings(at.config, {"cluster": settings})
    rows, source = _read_rows(at.folder, embeddings)
    check_count(config.cluster, rows)
    at.remember(config)

    folder, has_images = at.folder, embeddings is None
    whole = compute_fingerprint(config=asdict(config.cluster), seed=config.seed, source=source)
    if folder.read_manifest("clusters"):
        carry_words(folder)  # which a kill may have left to be done
    if folder.is_current("clusters", whole):
        log.info("cluster: up to date, %d objects in %d clusters", len(rows), read_clusters_manifest(folder)["k"])
    else:
        note_clusters(folder)
        if folder.read_manifest("clusters"):
            log.info("cluster: the clusters that were there are put aside; fastcomus history lists them")
        if exchange(folder, whole):
            carry_words(folder)
            log.info("cluster: found again, %d objects in %d clusters", len(rows), read_clusters_manifest(folder)["k"])
            return _finish(at, has_images)
        folder.begin("clusters", whole)
        found = cluster_embeddings(rows, config.cluster, config.seed, at.backend)
        clusters = found.clusters
        images = read_shards(folder, ["image"])["image"] if has_images else None
        write_clusters(folder, clusters, found.maps, images)
        file = str(Path(embeddings).resolve()) if isinstance(embeddings, Path | str) else ""
        facts = {"k": len(clusters.sizes), "objects": len(rows), "images": has_images, "source": source}
        facts.update(config=asdict(config.cluster), seed=config.seed, embeddings=file)
        folder.finish("clusters", whole, **facts, **found.collect_facts())
        sizes = clusters.sizes
        log.info("cluster: %d objects in %d clusters of %d to %d", len(rows), len(sizes), sizes[-1], sizes[0])
        carry_words(folder)
    return _finish(at, has_images)


@stage()
def suggest_k(at: Workplace, embeddings: Embeddings, *, settings: Mapping[str, Any]) -> SuggestedCounts:
    """Find the number of clusters by every criterion and write a page about them; see `Run.suggest_k`."""
    from fastcomus.report.count_page import write_count_page

    config = with_settings(at.config, {"cluster": settings})
    rows, _ = _read_rows(at.folder, embeddings)
    check_count(replace(config.cluster, k=0, method="spectral"), rows)
    if at.folder.read_state() is None:  # else what was asked for here is not remembered
        at.remember(at.config)
    suggested = suggest_counts(rows, config.cluster, config.seed, at.backend)
    count(objects=suggested.objects, **suggested.counts)
    at.folder.write_json("suggest-k/counts.json", asdict(suggested))
    log.info("suggest-k: open %s", write_count_page(at.folder, suggested, config.cluster.choose_k))
    return suggested


def cluster_rows(
    embeddings: ArrayLike, k: int = 0, *, seed: int = 0, device: str = "auto", **settings: Unpack[ClusterOptions]
) -> Clusters:
    """Cluster rows in memory: graph, eigenmaps, labels, filter (steps 4 to 7). Nothing is written.

    Args:
        embeddings: (N, D) finite numbers: an array, or what NumPy makes one of.
        k: Number of clusters, at least 2; 0 estimates it.
        seed: Seed of everything random.
        device: auto, cpu, cuda or cuda:N.
        **settings: See `config.ClusterConfig`.

    Returns:
        Labels (N,) int32, cosine distances to the centres, core members, centres and sizes.

    Raises:
        InputError: If the rows or a setting cannot be used.
    """
    rows = check_embeddings(embeddings)
    config = with_settings(Config(seed=seed), {"cluster": {"k": k, **settings}}).cluster
    check_count(config, rows)
    return cluster_embeddings(rows, config, seed, select(device)).clusters


def _read_rows(folder: RunFolder, embeddings: Embeddings) -> tuple[np.ndarray, str]:
    """Return the rows to cluster, (N, D) float32, checked, and a fingerprint of where they come from."""
    if embeddings is None:
        return check_embeddings(read_embedding_rows(folder)), read_objects_fingerprint(folder)
    rows, source = read_embeddings(embeddings)
    return check_embeddings(rows), source


def _finish(at: Workplace, has_images: bool) -> Clusters:
    """Write the tables and class maps that people look at."""
    clusters = read_clusters(at.folder)
    write_shown_tables(at.folder, read_names(at.folder, read_clusters_manifest(at.folder)))
    if has_images:
        from fastcomus.run.cluster_masks import write_cluster_masks

        write_cluster_masks(at)
    count(objects=len(clusters.labels), clusters=len(clusters.sizes))
    return clusters
