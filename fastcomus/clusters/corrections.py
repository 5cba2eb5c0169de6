"""What a person's corrections make of clusters, and of other clusters of the same objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fastcomus.store.corrections import FOUND_CLUSTER, NO_CLUSTER

if TYPE_CHECKING:
    from fastcomus.clusters.labels import Clusters

Corrected = Mapping[int, int]  # where each corrected object belongs, by its row; NO_CLUSTER for what is none


def settle_corrections(corrections: pa.Table) -> dict[int, int]:
    """Return where each corrected object belongs: the last word about it, by its row, in the order of the rows.

    Objects whose corrections were taken back are not among them.
    """
    words = zip(corrections["object"].to_pylist(), corrections["cluster"].to_pylist(), strict=True)
    last = {row: cluster for row, cluster in words if row >= 0}
    return {row: cluster for row, cluster in sorted(last.items()) if cluster != FOUND_CLUSTER}


def count_clusters(corrected: Corrected, k: int) -> int:
    """Return the number of clusters: the k that were found and those that a person added."""
    return max([k, *(cluster + 1 for cluster in corrected.values())])


def correct_clusters(found: Clusters, corrected: Corrected) -> Clusters:
    """Lay corrections over clusters.

    Args:
        found: The clusters as they were found.
        corrected: Where objects belong.

    Returns:
        Clusters whose `labels` are NO_CLUSTER for what is not an object. Objects that a person spoke of are core, but
        those that are none. `distances` stay those to the centre of the cluster that was found; centres of added
        clusters are NaN, see `fill_centres`.
    """
    if not corrected:
        return found
    rows, clusters = (np.array(list(part), np.int64) for part in (corrected.keys(), corrected.values()))
    labels, is_core = found.labels.copy(), found.is_core.copy()
    labels[rows] = clusters
    is_core[rows] = clusters != NO_CLUSTER
    k = count_clusters(corrected, len(found.sizes))
    added = np.full((k - len(found.centres), found.centres.shape[1]), np.nan, found.centres.dtype)
    centres, sizes = np.concatenate([found.centres, added]), np.bincount(labels[labels >= 0], minlength=k)
    return replace(found, labels=labels, is_core=is_core, centres=centres, sizes=sizes)


def fill_centres(clusters: Clusters, places: np.ndarray) -> Clusters:
    """Give clusters that a person added a centre: the mean of their objects in `places`, (N, C) float32.

    That of a cluster without objects lies far from everything, so that it attracts nothing.
    """
    centres = clusters.centres.copy()
    centres[clusters.sizes == 0] = np.finfo(np.float32).max / 1e20
    for cluster in np.flatnonzero(np.isnan(centres).any(axis=1)):
        centres[cluster] = places[clusters.labels == cluster].mean(axis=0)
    return replace(clusters, centres=centres)


def carry_corrections(corrected: Corrected, before: np.ndarray, now: np.ndarray, k: int) -> dict[int, int]:
    """Find where corrected objects belong among new clusters.

    The place of a cluster is taken by the new one that most of its other objects went to. An object whose new cluster
    is mostly made of those it was moved to is left there. Where nothing takes the place of a cluster, because it held
    corrected objects alone, these make up an added cluster again.

    Args:
        corrected: Where objects belong among the earlier clusters, by their rows now.
        before: (N,) integers, the earlier cluster of each object, corrected; NO_CLUSTER where it had none.
        now: (N,) integers, its new cluster as it was found.
        k: Number of the new clusters.

    Returns:
        Where the objects belong among the new clusters, which may be more than `k`.
    """
    spoken_of = np.zeros(len(before), bool)
    spoken_of[list(corrected)] = True
    counted = (before >= 0) & ~spoken_of
    counts = np.zeros((count_clusters(corrected, int(before.max(initial=0)) + 1), k), np.int64)
    np.add.at(counts, (before[counted], now[counted]), 1)
    origin = np.where(counts.sum(axis=0) > 0, counts.argmax(axis=0), NO_CLUSTER)  # of each new cluster
    added: dict[int, int] = {}
    carried = {}
    for row, cluster in corrected.items():
        if cluster == NO_CLUSTER:
            carried[row] = NO_CLUSTER
        elif origin[now[row]] == cluster:
            carried[row] = int(now[row])
        elif counts[cluster].any():
            carried[row] = int(counts[cluster].argmax())
        else:
            carried[row] = added.setdefault(cluster, k + len(added))
    return carried
