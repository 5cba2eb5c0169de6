"""Choice of the objects and images that the report shows where there are too many to show all."""

from __future__ import annotations

import numpy as np

from fastcomus.clusters.labels import Clusters


def sample_core(clusters: Clusters, cluster: int, count: int) -> np.ndarray:
    """Choose objects of a cluster's core, evenly from the nearest to its centre to the farthest.

    Args:
        clusters: All clusters.
        cluster: Number of the cluster.
        count: Number of objects at most.

    Returns:
        (M,) rows.
    """
    return _pick_evenly(_sort_by_distance(clusters, (clusters.labels == cluster) & clusters.is_core), count)


def sample_filtered(clusters: Clusters, cluster: int, count: int) -> np.ndarray:
    """Choose objects that the filter left out of a cluster, evenly up to the farthest; see `sample_core`."""
    return _pick_evenly(_sort_by_distance(clusters, (clusters.labels == cluster) & ~clusters.is_core), count)


def sample_every_cluster(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Choose objects at random, of small clusters a larger share.

    Args:
        labels: (N,) cluster of each object.
        most: Number of objects at most.
        seed: Of the random choice.

    Returns:
        (M,) rows, ascending; all where there are not more than `most`.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    # Objects are shuffled and ordered by their place in their own cluster; the first `least` of each cluster go first.
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
    """Choose images: those that must come first, and others spread evenly over the rest.

    Args:
        names: All images.
        first: Images to prefer.
        most: Number of images at most.

    Returns:
        The chosen images in the order of `names`.
    """
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
    picked: np.ndarray = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return picked
