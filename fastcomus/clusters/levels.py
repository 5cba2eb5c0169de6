"""Coarser and finer clusters beside those that there are, nested: whole ones joined, and single ones split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from fastcomus.clusters.communities import fit_affinity, gather_groups
from fastcomus.clusters.granularity import FINE_RESOLUTION
from fastcomus.clusters.graph import KnnGraph, drop_loops
from fastcomus.clusters.labels import number_by_size
from fastcomus.clusters.mixing import Joins, cut_joins, join_communities, join_parts

_LEAST = 4  # objects
_NEAR, _FAR = 4 / 3, 4  # times the number, between which coarser and finer ones lie


@dataclass(frozen=True)
class Levels:
    """Coarser and finer clusters of N objects in k clusters; each fine one lies in one of the k, each of these in one.

    Attributes:
        coarse: (N,) int32 from 0, the largest first; None where the data speak for no coarser number.
        fine: (N,) int32 from 0, the largest first; None where they speak for no finer one.
    """

    coarse: np.ndarray | None = None
    fine: np.ndarray | None = None

    def count(self) -> dict[str, int]:
        """Count the coarse and the fine clusters; 0 for none."""
        both = {"coarse": self.coarse, "fine": self.fine}
        return {name: 0 if one is None else int(one.max()) + 1 for name, one in both.items()}

    def describe(self) -> str:
        """Say how many there are of each."""
        counts = self.count()
        parts = [f"{counts[name]} {word}" for name, word in (("coarse", "coarser"), ("fine", "finer")) if counts[name]]
        return " and ".join(parts) or "no coarser or finer ones"


def find_levels(graph: KnnGraph, labels: np.ndarray, seed: int) -> Levels:
    """Find coarser and finer clusters.

    Whole clusters are joined, the pair that mixes most first. Links between clusters are cut, and the fine communities
    of what is left joined likewise, so that each lies in one cluster. Each number is the one, between 4/3 and 4 times
    fewer or more, after whose joins the next pair mixes least in proportion to the pair joined last.

    Args:
        graph: Of N nodes.
        labels: (N,) integers in [0, k), each of which occurs.
        seed: For the order in which nodes are visited.

    Returns:
        The levels; those of fewer than 4 objects are None.
    """
    if len(labels) < _LEAST:
        return Levels()
    return Levels(_join_clusters(graph, labels), _split_clusters(graph, labels, seed))


def list_parts(outer: np.ndarray, inner: np.ndarray) -> dict[int, list[int]]:
    """List the inner clusters in each outer one that has several.

    Args:
        outer: (N,) integers, coarser clusters.
        inner: (N,) integers, clusters of which each lies in one of those.
    """
    pairs = np.unique(np.stack([outer, inner], axis=1), axis=0)
    parts: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        parts.setdefault(one, []).append(other)
    return {one: others for one, others in parts.items() if len(others) > 1}


def _join_clusters(graph: KnnGraph, labels: np.ndarray) -> np.ndarray | None:
    k = int(labels.max()) + 1
    joins = join_parts(drop_loops(graph.affinity), labels)
    count = _pick_count(joins, max(2, k / _FAR), k / _NEAR)
    return number_by_size(cut_joins(joins, k - count)) if count else None


def _split_clusters(graph: KnnGraph, labels: np.ndarray, seed: int) -> np.ndarray | None:
    n, k = len(labels), int(labels.max()) + 1
    links = fit_affinity(graph, k).tocoo()
    kept = labels[links.row] == labels[links.col]
    inside = csr_array((links.data[kept], (links.row[kept], links.col[kept])), shape=links.shape)
    joins = join_communities(inside, FINE_RESOLUTION, seed)
    count = _pick_count(joins, _NEAR * k, min(_FAR * k, n / 3))
    groups = cut_joins(joins, int(joins.parts.max()) + 1 - count) if count else labels
    is_large = np.bincount(groups) >= max(3.0, math.sqrt(n) / 4)
    fine, found = np.empty(n, np.int64), 0
    for members in np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1]):
        own, places = np.unique(groups[members], return_inverse=True)
        parts = max(1, int(is_large[own].sum()))
        fine[members] = found + gather_groups(inside[members][:, members], places, parts)
        found += parts
    return number_by_size(fine) if found > k else None


def _pick_count(joins: Joins, least: float, most: float) -> int:
    """Pick the number in [least, most] before whose next join mixing falls most; 0 for none."""
    mixing = np.append(joins.mixing, 0.0)  # what is left in the end has no links
    left = int(joins.parts.max()) + 1 - np.arange(len(mixing))
    inside = [join for join in range(1, len(left)) if least <= left[join] <= most]
    falls = [mixing[join - 1] / max(mixing[join], 1e-3) for join in inside]
    return int(left[inside[int(np.argmax(falls))]]) if inside else 0
