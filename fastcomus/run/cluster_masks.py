"""Iteration 0: the class maps of the clusters themselves (step 8), some of which corrections change."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastcomus.clusters.corrections import settle_corrections
from fastcomus.clusters.files import read_clusters
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import show_progress
from fastcomus.run.contents import read_clusters_manifest, read_skipped
from fastcomus.run.workplace import Workplace
from fastcomus.segmentation.pseudo_masks import assemble_class_maps
from fastcomus.store.corrections import read_corrections
from fastcomus.store.integrity import seal_json
from fastcomus.store.masks import get_mask_path, write_class_map
from fastcomus.store.objects_table import SKIPPED_SCHEMA, iterate_shards, read_shards, read_whole_images
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")
_STAGE, _MANIFEST = "iteration-0", "iteration-0/manifest.json"
_COLUMNS = ["image", "width", "height", "score", "mask"]
_MOST_EARLIER = 200


def write_cluster_masks(at: Workplace) -> None:
    """Write the class maps of the clusters, iteration-0/masks/, that are not up to date.

    That is all of them after clusters were made anew, and after a correction those of the images with its objects.
    """
    folder, clusters = at.folder, read_clusters_manifest(at.folder)
    found, whole = clusters["fingerprint"], compute_fingerprint(follows=clusters["corrected"])
    if folder.is_current(_STAGE, whole):
        _make_lost_maps(at)
        return
    corrected = settle_corrections(read_corrections(folder))
    present = folder.read_manifest(_STAGE) or {}
    facts: dict[str, Any] = {"follows": clusters["corrected"]}
    if corrected:
        facts |= {"found": found, "corrected": {str(row): cluster for row, cluster in corrected.items()}}
    if found not in (present.get("follows"), present.get("found")):
        folder.begin(_STAGE, whole)
        _write_maps(at, iterate_shards(folder, _COLUMNS), read_clusters(folder).labels, read_skipped(folder))
        folder.finish(_STAGE, whole, **facts)
        return
    _write_changed_maps(at, present, corrected)
    earlier = [one for one in [*present.get("earlier", []), present["fingerprint"]] if one != whole][-_MOST_EARLIER:]
    folder.write_json(_MANIFEST, seal_json({"fingerprint": whole, **facts, "found": found, "earlier": earlier}))


def _make_lost_maps(at: Workplace) -> None:
    """Write the maps that are gone anew."""
    folder, skipped = at.folder, read_skipped(at.folder)
    skipped = skipped.filter(pc.greater(skipped["width"], 0))
    images = read_shards(folder, ["image"])["image"]
    names = {*images.to_pylist(), *skipped["image"].to_pylist()}
    lost = sorted(name for name in names if not folder.resolve_file(get_mask_path(_STAGE, name)).exists())
    if not lost:
        return
    log.warning("%s: masks are gone (%d in all, such as that of %s); made anew", _STAGE, len(lost), lost[0])
    is_lost = pc.is_in(images, pa.array(lost))
    labels = read_clusters(folder).labels[is_lost.to_numpy()]
    skipped = skipped.filter(pc.is_in(skipped["image"], pa.array(lost)))
    _write_maps(at, [read_shards(folder, _COLUMNS).filter(is_lost)], labels, skipped)


def _write_changed_maps(at: Workplace, present: dict[str, Any], corrected: dict[int, int]) -> None:
    """Write the maps of images with objects whose cluster is not what it was for the manifest `present`."""
    before = {int(row): cluster for row, cluster in present.get("corrected", {}).items()}
    changed = {row for row in {*before, *corrected} if before.get(row) != corrected.get(row)}
    # Written down first: after an interruption these maps may be of the one or of the other state.
    changing = sorted(changed | set(present.get("changing", [])))
    at.folder.write_json(_MANIFEST, seal_json({**present, "changing": changing}))
    if changing:
        table, rows = read_whole_images(at.folder, changing, _COLUMNS)
        _write_maps(at, [table], read_clusters(at.folder).labels[rows], SKIPPED_SCHEMA.empty_table())


def _write_maps(at: Workplace, parts: Iterable[pa.Table], labels: np.ndarray, skipped: pa.Table) -> None:
    with show_progress("cluster masks", len(labels) + len(skipped), "images") as advance:
        for class_map in assemble_class_maps(parts, labels, skipped, at.backend):
            write_class_map(at.folder, get_mask_path(_STAGE, class_map.image), class_map.labels)
            advance(1)
            reach_safe_point()
