"""A card per cluster: samples of its core and of what was filtered, size, spread, nearest clusters."""

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
    """`similarity`: cosine between the mean embeddings, in [-1, 1]."""

    cluster: int
    similarity: float


@dataclass(frozen=True)
class ClusterCard:
    """`core`, `filtered`: rows shown. `size`, `core_size`: objects. `spread`: mean cosine distance of the embeddings to
    the direction of their mean, in [0, 2]."""

    cluster: int
    size: int
    core_size: int
    spread: float
    core: tuple[int, ...]
    filtered: tuple[int, ...]
    nearest: tuple[NearCluster, ...]


def make_cluster_cards(rows: np.ndarray, clusters: Clusters, samples: int) -> list[ClusterCard]:
    """Cards of all clusters, the largest first (as they are numbered). `rows`: (N, D) embeddings."""
    count = len(clusters.sizes)
    parts = [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(rows), _ROWS_AT_ONCE)]
    sums = np.zeros((count, rows.shape[1]))
    for part in parts:
        np.add.at(sums, clusters.labels[part], rows[part])
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
