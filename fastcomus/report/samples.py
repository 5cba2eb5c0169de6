"""Which objects and images the report shows, where there are too many for all."""

from __future__ import annotations

import numpy as np

from fastcomus.clusters.labels import Clusters


def sample_core(clusters: Clusters, cluster: int, count: int) -> np.ndarray:
    """Up to `count` rows (M,) of a cluster's core, evenly from the nearest to its centre to the farthest."""
    return _pick_evenly(_sort_by_distance(clusters, (clusters.labels == cluster) & clusters.is_core), count)


def sample_filtered(clusters: Clusters, cluster: int, count: int) -> np.ndarray:
    """Up to `count` rows (M,) of what the filter left out of a cluster, evenly up to the farthest."""
    return _pick_evenly(_sort_by_distance(clusters, (clusters.labels == cluster) & ~clusters.is_core), count)


def sample_every_cluster(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` rows, ascending: all, or a random share of every cluster, of small ones a larger share."""
    if len(labels) <= most:
        return np.arange(len(labels))
    # Shuffled, then ordered by the place within the own cluster, weighted so that each begins with its first ones.
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = labels[order]
    sizes = np.bincount(labels)
    by_cluster = np.argsort(shuffled, kind="stable")
    place = np.empty(len(labels), np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place[by_cluster] = np.arange(len(labels)) - starts[shuffled[by_cluster]]
    least = max(1, most // (2 * len(sizes)))
    urgency = np.where(place < least, place / len(labels), 1 + place / sizes[shuffled])
    return np.sort(order[np.argsort(urgency, kind="stable")[:most]])


def choose_shown_images(names: tuple[str, ...], first: list[str], most: int) -> list[str]:
    """At most `most` of `names`, in their order: those of `first` before others, the others evenly."""
    wanted = dict.fromkeys(first[:most])
    others = [name for name in names if name not in wanted]
    places = _pick_evenly(np.arange(len(others)), most - len(wanted))
    wanted.update(dict.fromkeys(others[place] for place in places))
    return [name for name in names if name in wanted]


def _sort_by_distance(clusters: Clusters, chosen: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(clusters.distances[rows], kind="stable")]


def _pick_evenly(rows: np.ndarray, count: int) -> np.ndarray:
    if count <= 0 or len(rows) <= count:
        return rows if count > 0 else rows[:0]
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
