"""Cards of the report, one per cluster: samples of its core and of what was filtered, size, spread, near clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.clusters.labels import Clusters
from fastcomus.report.samples import sample_core, sample_filtered
from fastcomus.store.embeddings import normalise_rows

_NEAREST = 3
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class NearCluster:
    """A neighbour of a cluster; `similarity` is the cosine between their mean embeddings, in [-1, 1]."""

    cluster: int
    similarity: float


@dataclass(frozen=True)
class ClusterCard:
    """What the report shows of a cluster.

    Attributes:
        cluster: Its number.
        size: Number of its objects.
        core_size: Number of those that passed the filter.
        spread: Mean cosine distance of its embeddings to the direction of their mean, in [0, 2].
        core: Rows of the objects shown of the core.
        filtered: Rows of the objects shown of what was filtered.
        nearest: The nearest other clusters, nearest first.
    """

    cluster: int
    size: int
    core_size: int
    spread: float
    core: tuple[int, ...]
    filtered: tuple[int, ...]
    nearest: tuple[NearCluster, ...]


def make_cluster_cards(rows: np.ndarray, clusters: Clusters, samples: int) -> list[ClusterCard]:
    """Make the cards of all clusters in the order of their numbers, which is from large to small.

    Args:
        rows: (N, D) embeddings.
        clusters: Their clusters.
        samples: Number of objects shown of a core; half as many are shown of what was filtered.

    Returns:
        A card per cluster.
    """
    count = len(clusters.sizes)
    parts = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(rows), _ROWS_AT_ONCE)]
    sums = np.zeros((count, rows.shape[1]))
    for part in parts:
        own = clusters.labels[part] >= 0  # others are no objects
        np.add.at(sums, clusters.labels[part][own], rows[part][own])
    means = normalise_rows(sums)
    distances = np.empty(len(rows))
    for part in parts:
        distances[part] = 1 - np.einsum("nd,nd->n", normalise_rows(rows[part]), means[clusters.labels[part]])
    similarity = means @ means.T
    cards = []
    for cluster in range(count):
        members = clusters.labels == cluster
        order = [int(other) for other in np.argsort(-similarity[cluster], kind="stable") if other != cluster]
        cards.append(
            ClusterCard(
                cluster,
                int(clusters.sizes[cluster]),
                int((members & clusters.is_core).sum()),
                float(distances[members].mean()) if members.any() else 0.0,
                tuple(sample_core(clusters, cluster, samples).tolist()),
                tuple(sample_filtered(clusters, cluster, max(1, samples // 2)).tolist()),
                tuple(NearCluster(other, float(similarity[cluster, other])) for other in order[:_NEAREST]),
            )
        )
    return cards
