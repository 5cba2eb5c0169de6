"""The gallery: every object with what orders it, its likest ones, near-duplicates and what is unlike anything.

It is written as scripts that a page from disk loads: data/objects.js at once, data/near.js when it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.backends.placed import fetch
from fastcomus.clusters.labels import Clusters
from fastcomus.report.findings import Findings
from fastcomus.report.script_data import write_script
from fastcomus.store.embeddings import normalise_rows
from fastcomus.store.run_folder import RunFolder

OBJECTS, NEAR = "data/objects.js", "data/near.js"
_NEIGHBOURS = 12  # shown of each object
_RECALL = 0.9
_MOST_COMPARED = 200_000  # objects whose neighbours are sought for the page
_DUPLICATES, _ALIKE = 200, 0.97  # pairs shown at most, and the cosine from which they count as such
_OUTLIERS = 120
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Likeness:
    """How the N objects of a run lie to each other, after subtraction of the mean embedding.

    Attributes:
        second: (N,) int32, of the clusters an object is not in the one whose mean is nearest; -1 with one cluster.
        margin: (N,) float32 in [-2, 2], cosine to the mean of its own cluster less that to the second: near and below 0
            where an object lies between two.
        unlike: (N,) float32 in [0, 2], mean cosine distance to its likest objects; to its cluster's mean where none
            were sought.
        near: (N, n) int32, the likest objects, likest first; n is 0 where there are too many to seek.
        soundness: (N,) float32 in [0, 1], see `measure_soundness`; empty where all scores are equal.
        duplicates: (M, 2) int32, pairs of objects of different images that are nearly the same, likest first.
    """

    second: np.ndarray
    margin: np.ndarray
    unlike: np.ndarray
    near: np.ndarray
    soundness: np.ndarray
    duplicates: np.ndarray


def compare_objects(
    rows: np.ndarray, clusters: Clusters, images: Collection[str], scores: np.ndarray, seed: int, backend: Backend
) -> Likeness:
    """Compare the objects of a run with the means of the clusters and with one another.

    Args:
        rows: (N, D) float32 embeddings.
        clusters: Their clusters; those without one are compared, too.
        images: The image of each object.
        scores: (N,) float, the mean saliency in the mask of each.
        seed: Of the search for neighbours.
        backend: Searches for neighbours.
    """
    unit = normalise_rows(rows - rows.mean(axis=0))
    k, labels = len(clusters.sizes), clusters.labels
    means = np.zeros((k, rows.shape[1]), np.float32)
    np.add.at(means, labels[labels >= 0], unit[labels >= 0])
    means = normalise_rows(means)
    own, second = np.empty(len(rows), np.float32), np.full(len(rows), -1, np.int32)
    other = np.full(len(rows), -1, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        likeness, place = unit[part] @ means.T, np.arange(len(unit[part]))
        own[part] = np.where(labels[part] >= 0, likeness[place, labels[part]], likeness.max(axis=1))
        likeness[place, labels[part]] = -np.inf
        if k > 1:
            second[part], other[part] = likeness.argmax(axis=1), likeness.max(axis=1)
    near = np.empty((len(rows), 0), np.int32)
    count = min(_NEIGHBOURS + 1, len(rows) - 1)
    if count > 1 and len(rows) <= _MOST_COMPARED:
        near = fetch(backend.find_neighbors(unit, count, _RECALL, seed).indices)[:, 1:].astype(np.int32)
    soundness = measure_soundness(scores, labels, near)
    if not near.shape[1]:
        return Likeness(second, own - other, 1 - own, near, soundness, np.empty((0, 2), np.int32))
    likeness = np.stack([np.einsum("nd,nd->n", unit, unit[near[:, i]]) for i in range(near.shape[1])], axis=1)
    unlike = 1 - likeness[:, : min(5, near.shape[1])].mean(axis=1)
    return Likeness(second, own - other, unlike, near, soundness, _pair_duplicates(near, likeness, list(images)))


def measure_soundness(scores: np.ndarray, labels: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Rate how likely masks show objects, not background: by saliency in them and in those of what is most like them.

    The score of an object is ranked within its cluster, since kinds of objects differ in saliency, and ranks are
    averaged over the object and its likest ones, since background looks alike. What a person said is no object ranks
    lowest, so that what is like it is looked at next.

    Args:
        scores: (N,) float, the mean saliency in the mask of each object.
        labels: (N,) integers, their clusters; -1 for none.
        near: (N, n) integers, the likest objects of each.

    Returns:
        (N,) float32 in [0, 1], low for masks that should be looked at; empty where all scores are equal, which
        says nothing.
    """
    if not len(scores) or scores.min() == scores.max():
        return np.empty(0, np.float32)
    ranks = np.zeros(len(scores))
    for cluster in range(labels.max() + 1):
        own = np.flatnonzero(labels == cluster)
        _, place, counts = np.unique(scores[own], return_inverse=True, return_counts=True)
        ranks[own] = ((counts.cumsum() - counts / 2) / max(1, len(own)))[place]  # equal scores share the middle
    return ((ranks + ranks[near].sum(axis=1)) / (1 + near.shape[1])).astype(np.float32)


def _pair_duplicates(near: np.ndarray, likeness: np.ndarray, images: list[str]) -> np.ndarray:
    """Return pairs, (M, 2), of objects of different images that are nearly the same, likest first."""
    first, column = np.nonzero(likeness >= _ALIKE)
    order = np.argsort(-likeness[first, column], kind="stable")
    pairs: dict[tuple[int, int], None] = {}
    for place in order:
        a, b = int(first[place]), int(near[first[place], column[place]])
        if not images or images[a] != images[b]:
            pairs.setdefault((min(a, b), max(a, b)))
        if len(pairs) == _DUPLICATES:
            break
    return np.array(list(pairs), np.int32).reshape(-1, 2)


def write_gallery(target: RunFolder, found: Findings, likeness: Likeness, thumbnails: Collection[int]) -> None:
    """Write the scripts of the gallery.

    Args:
        target: The folder of the report.
        found: The run's contents.
        likeness: Of its objects.
        thumbnails: Rows of the objects that have a thumbnail.
    """
    assert found.objects is not None
    places = {name: place for place, name in enumerate(dict.fromkeys(found.objects.images))}
    kept = np.flatnonzero(found.clusters.labels >= 0)
    unlikest = kept[np.argsort(-likeness.unlike[kept], kind="stable")[: min(_OUTLIERS, len(kept) // 10)]]
    write_script(
        target,
        OBJECTS,
        "fastcomus.objects",
        {
            "images": list(places),
            "image": [places[name] for name in found.objects.images],
            "cluster": found.clusters.labels.tolist(),
            "core": found.clusters.is_core.astype(int).tolist(),
            "distance": [float(f"{value:.5g}") for value in found.clusters.distances.tolist()],
            "second": likeness.second.tolist(),
            "margin": [round(value, 3) for value in likeness.margin.tolist()],
            "unlike": [round(value, 3) for value in likeness.unlike.tolist()],
            "soundness": [round(value, 3) for value in likeness.soundness.tolist()],
            "corrected": sorted(found.corrected),
            "duplicates": likeness.duplicates.tolist(),
            "outliers": unlikest.tolist(),
            "without": _list_missing(len(found.rows), thumbnails),
            "near": NEAR if likeness.near.shape[1] else "",
        },
    )
    if likeness.near.shape[1]:
        write_script(target, NEAR, "fastcomus.near", likeness.near.tolist())


def _list_missing(count: int, thumbnails: Collection[int]) -> list[int]:
    """Return the rows without a thumbnail."""
    has = np.zeros(count, bool)
    has[list(thumbnails)] = True
    return np.flatnonzero(~has).tolist()
