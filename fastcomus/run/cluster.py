"""`cluster` and `suggest-k`: embeddings to clusters and their class maps (steps 4 to 8)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import ArrayLike

from fastcomus.clusters.checks import check_count
from fastcomus.clusters.files import read_clusters, read_found_clusters, read_names, write_clusters
from fastcomus.clusters.shown_tables import TABLE, has_levels, write_levels, write_shown_tables
from fastcomus.config import Config
from fastcomus.progress import count
from fastcomus.run.carrying import carry_words, note_clusters
from fastcomus.run.clustered_input import Embeddings, GivenRows, Graph, read_given, read_rows, take_given
from fastcomus.run.contents import read_clusters_manifest
from fastcomus.run.keywords import ClusterOptions
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.objects_table import read_shards
from fastcomus.store.sealed_json import compute_fingerprint
from fastcomus.store.shelf import exchange

if TYPE_CHECKING:
    from fastcomus.clusters.count import SuggestedCounts
    from fastcomus.clusters.labels import Clusters

log = logging.getLogger("fastcomus")


@stage()
def cluster(
    at: Workplace,
    embeddings: Embeddings,
    graph: Graph = None,
    *,
    levels: bool = False,
    engine: str = "local",
    address: str = "",
    settings: Mapping[str, Any],
) -> Clusters:
    """Cluster the objects, or rows or a graph of the caller's own; see `Run.cluster`."""
    config, folder = with_settings(at.config, {"cluster": settings}), at.folder
    chosen_engine = at.choose_engine(engine, address)
    given = read_given(folder, embeddings, graph, config.cluster)
    if levels:
        given.check_levels()
    at.remember(config)

    whole = compute_fingerprint(
        config=asdict(config.cluster), seed=config.seed, source=given.source, **given.collect_facts()
    )
    if folder.read_manifest("clusters"):
        carry_words(folder)  # which a kill may have left to be done
    if folder.is_current("clusters", whole):
        manifest = read_clusters_manifest(folder)
        log.info("cluster: up to date, %d objects in %d clusters", manifest["objects"], manifest["k"])
    else:
        note_clusters(folder)
        if folder.read_manifest("clusters"):
            log.info("cluster: the clusters that were there are put aside; fastcomus history lists them")
        if exchange(folder, whole):
            carry_words(folder)
            manifest = read_clusters_manifest(folder)
            log.info("cluster: found again, %d objects in %d clusters", manifest["objects"], manifest["k"])
            return _finish(at, given, config, levels)
        folder.begin("clusters", whole)
        found, facts = given.cluster(config, at.backend, folder, chosen_engine)
        clusters = found.clusters
        images = read_shards(folder, ["image"])["image"] if given.has_images else None
        write_clusters(folder, clusters, found.maps, images)
        file = str(Path(embeddings).resolve()) if isinstance(embeddings, Path | str) else ""
        sizes, objects = clusters.sizes, len(clusters.labels)
        facts |= {"k": len(sizes), "objects": objects, "images": given.has_images, "source": given.source}
        facts.update(config=asdict(config.cluster), seed=config.seed, embeddings=file, **given.collect_facts())
        folder.finish("clusters", whole, **facts, **found.collect_facts())
        log.info("cluster: %d objects in %d clusters of %d to %d", objects, len(sizes), sizes[-1], sizes[0])
        carry_words(folder)
    return _finish(at, given, config, levels)


@stage()
def suggest_k(at: Workplace, embeddings: Embeddings, *, settings: Mapping[str, Any]) -> SuggestedCounts:
    """Find the number of clusters by every criterion and write a page about them; see `Run.suggest_k`."""
    rows, source = read_rows(at.folder, embeddings)
    config = with_settings(at.config, {"cluster": settings})
    from fastcomus.clusters.cluster import suggest_counts
    from fastcomus.clusters.kept_graph import GraphKeeper
    from fastcomus.report.count_page import write_count_page
    from fastcomus.report.level_pictures import draw_levels
    from fastcomus.run.shown_objects import read_shown_objects

    check_count(replace(config.cluster, k=0, method="spectral"), rows)
    if at.folder.read_state() is None:  # else what was asked for here is not remembered
        at.remember(at.config)
    keeper = GraphKeeper(at.folder, source, config.cluster, config.seed)
    suggested = suggest_counts(rows, config.cluster, config.seed, at.backend, keeper)
    count(objects=suggested.objects, **suggested.counts)
    at.folder.write_json("suggest-k/counts.json", suggested.summarise())
    objects = read_shown_objects(at)[1] if embeddings is None and any(suggested.levels.count().values()) else None
    levels = draw_levels(suggested, rows, objects, config.embed.max_pixels, at.backend)
    log.info("suggest-k: open %s", write_count_page(at.folder, suggested, config.cluster.choose_k, levels))
    return suggested


def cluster_rows(
    embeddings: ArrayLike | None = None,
    k: int = 0,
    *,
    graph: Any = None,
    levels: bool = False,
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
        levels: Whether to find coarser and finer clusters, too.
        seed: Seed of everything random.
        device: auto, cpu, cuda or cuda:N.
        **settings: See `config.ClusterConfig`.

    Returns:
        Labels (N,) int32, cosine distances to the centres, core members, centres and sizes; `coarse` and `fine` by
        `levels`.

    Raises:
        InputError: If the rows, the graph or a setting cannot be used.
    """
    from fastcomus.backends.choose import select

    config = with_settings(Config(), {"seed": seed, "cluster": {"k": k, **settings}})
    given, backend = take_given(embeddings, graph, config.cluster), select(device)
    if levels:
        given.check_levels()
    clusters = given.cluster(config, backend)[0].clusters
    if not levels:
        return clusters
    found = given.find_levels(clusters.labels, config, backend, None)
    return replace(clusters, coarse=found.coarse, fine=found.fine)


def _finish(at: Workplace, given: GivenRows, config: Config, levels: bool) -> Clusters:
    """Write the tables and class maps that people look at."""
    if levels and not has_levels(at.folder):
        found = given.find_levels(read_found_clusters(at.folder).labels, config, at.backend, at.folder)
        write_levels(at.folder, found.coarse, found.fine)
        log.info("cluster: beside them %s, in %s", found.describe(), TABLE)
    clusters = read_clusters(at.folder)
    write_shown_tables(at.folder, read_names(at.folder, read_clusters_manifest(at.folder)))
    if given.has_images:
        from fastcomus.run.cluster_masks import write_cluster_masks

        write_cluster_masks(at)
    count(objects=len(clusters.labels), clusters=len(clusters.sizes))
    return clusters
