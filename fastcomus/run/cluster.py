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
from fastcomus.clusters.checks import check_count
from fastcomus.clusters.cluster import suggest_counts
from fastcomus.clusters.count import SuggestedCounts
from fastcomus.clusters.files import read_clusters, read_names, write_clusters, write_names
from fastcomus.clusters.kept_graph import GraphKeeper
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.names import carry_names
from fastcomus.config import Config
from fastcomus.errors import InputError
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import count, show_progress
from fastcomus.run.clustered_input import Embeddings, Graph, read_given, read_rows, take_given
from fastcomus.run.contents import (
    read_clusters_manifest,
    read_skipped,
)
from fastcomus.run.keywords import ClusterOptions
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.masks import get_mask_path, write_class_map
from fastcomus.store.objects_table import iterate_shards, read_shards
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint
from fastcomus.store.shelf import exchange

log = logging.getLogger("fastcomus")


@stage()
def cluster(
    at: Workplace,
    embeddings: Embeddings,
    graph: Graph = None,
    *,
    engine: str = "local",
    address: str = "",
    settings: Mapping[str, Any],
) -> Clusters:
    """Cluster the objects, or rows or a graph of the caller's own; see `Run.cluster`."""
    config, folder = with_settings(at.config, {"cluster": settings}), at.folder
    chosen_engine = at.choose_engine(engine, address)
    given = read_given(folder, embeddings, graph, config.cluster)
    at.remember(config)

    whole = compute_fingerprint(
        config=asdict(config.cluster), seed=config.seed, source=given.source, **given.collect_facts()
    )
    if folder.is_current("clusters", whole):
        clusters = read_clusters(folder)
        log.info("cluster: up to date, %d objects in %d clusters", len(clusters.labels), len(clusters.sizes))
    else:
        before = _read_named_clusters(folder, given.source)
        if folder.read_manifest("clusters"):
            log.info("cluster: the clusters that were there are put aside; fastcomus history lists them")
        if exchange(folder, whole):
            clusters = read_clusters(folder)
            log.info("cluster: found again, %d objects in %d clusters", len(clusters.labels), len(clusters.sizes))
            _finish(at, clusters, whole, given.has_images)
            return clusters
        folder.begin("clusters", whole)
        found, facts = given.cluster(config, at.backend, folder, chosen_engine, whole)
        clusters = found.clusters
        images = read_shards(folder, ["image"])["image"] if given.has_images else None
        write_clusters(folder, clusters, found.maps, images)
        file = str(Path(embeddings).resolve()) if isinstance(embeddings, Path | str) else ""
        sizes, objects = clusters.sizes, len(clusters.labels)
        facts |= {"k": len(sizes), "objects": objects, "images": given.has_images, "source": given.source}
        facts.update(config=asdict(config.cluster), seed=config.seed, embeddings=file, **given.collect_facts())
        folder.finish("clusters", whole, **facts, **found.collect_facts())
        log.info("cluster: %d objects in %d clusters of %d to %d", objects, len(sizes), sizes[-1], sizes[0])
        if before is not None:
            _carry_names(folder, *before, clusters)
    _finish(at, clusters, whole, given.has_images)
    return clusters


@stage()
def suggest_k(at: Workplace, embeddings: Embeddings, *, settings: Mapping[str, Any]) -> SuggestedCounts:
    """Find the number of clusters by every criterion and write a page about them; see `Run.suggest_k`."""
    from fastcomus.report.count_page import write_count_page

    config = with_settings(at.config, {"cluster": settings})
    rows, source = read_rows(at.folder, embeddings)
    check_count(replace(config.cluster, k=0, method="spectral"), rows)
    if at.folder.read_state() is None:  # else what was asked for here is not remembered
        at.remember(at.config)
    keeper = GraphKeeper(at.folder, source, config.cluster, config.seed)
    suggested = suggest_counts(rows, config.cluster, config.seed, at.backend, keeper)
    count(objects=suggested.objects, **suggested.counts)
    at.folder.write_json("suggest-k/counts.json", asdict(suggested))
    log.info("suggest-k: open %s", write_count_page(at.folder, suggested, config.cluster.choose_k))
    return suggested


def cluster_rows(
    embeddings: ArrayLike | None = None,
    k: int = 0,
    *,
    graph: Any = None,
    seed: int = 0,
    device: str = "auto",
    **settings: Unpack[ClusterOptions],
) -> Clusters:
    """Cluster rows in memory: graph, eigenmaps, labels, filter (steps 4 to 7). Nothing is written.

    Args:
        embeddings: (N, D) finite numbers: an array, or what NumPy makes one of. May be left out where `graph` is given.
        k: Number of clusters, at least 2; 0 estimates it.
        graph: (N, N) weights of links between the objects, not negative, sparse or dense, in place of a search for
            neighbours. Weights that differ by direction are averaged; those of an object to itself do not count.
        seed: Seed of everything random.
        device: auto, cpu, cuda or cuda:N.
        **settings: See `config.ClusterConfig`.

    Returns:
        Labels (N,) int32, cosine distances to the centres, core members, centres and sizes.

    Raises:
        InputError: If the rows, the graph or a setting cannot be used.
    """
    config = with_settings(Config(seed=seed), {"cluster": {"k": k, **settings}})
    return take_given(embeddings, graph, config.cluster).cluster(config, select(device))[0].clusters


def _finish(at: Workplace, clusters: Clusters, whole: str, has_images: bool) -> None:
    if has_images:
        _write_cluster_masks(at, clusters, whole)
    count(objects=len(clusters.labels), clusters=len(clusters.sizes))


def _read_named_clusters(folder: RunFolder, source: str) -> tuple[dict[int, str], np.ndarray] | None:
    """Return the names of the clusters that are there and their labels (N,), where they are of the same objects."""
    manifest = folder.read_manifest("clusters")
    if manifest is None or manifest["source"] != source:
        return None
    try:
        given = dict(read_names(folder, manifest).given)
    except InputError:  # names of other clusters
        return None
    return (given, read_clusters(folder).labels) if given else None


def _carry_names(folder: RunFolder, given: dict[int, str], before: np.ndarray, clusters: Clusters) -> None:
    """Give new clusters the names that most of their objects had."""
    carried = carry_names(given, before, clusters.labels)
    manifest = read_clusters_manifest(folder)
    for cluster, (name, share) in carried.items():
        log.info("cluster: %d keeps the name %s, which %.0f %% of its objects had", cluster, name, 100 * share)
    if carried:
        write_names(folder, manifest, {cluster: name for cluster, (name, _) in carried.items()})
    if lost := sorted(set(given.values()) - {name for name, _ in carried.values()}):
        log.warning("cluster: no cluster is clearly %s any more; such names stay in the history", ", ".join(lost))


def _write_cluster_masks(at: Workplace, clusters: Clusters, follows: str) -> None:
    """Write iteration 0: the class maps of the clusters themselves (step 8)."""
    from fastcomus.segmentation.pseudo_masks import assemble_class_maps

    whole, folder = compute_fingerprint(follows=follows), at.folder
    if folder.is_current("iteration-0", whole):
        return
    folder.begin("iteration-0", whole)
    skipped = read_skipped(folder)
    with show_progress("cluster masks", len(clusters.labels) + len(skipped), "images") as advance:
        parts = iterate_shards(folder, ["image", "width", "height", "score", "mask"])
        for class_map in assemble_class_maps(parts, clusters.labels, skipped, at.backend):
            write_class_map(folder, get_mask_path("iteration-0", class_map.image), class_map.labels)
            advance(1)
            reach_safe_point()
    folder.finish("iteration-0", whole, follows=follows)
