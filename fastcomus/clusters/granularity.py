"""How sure a number of clusters is, and coarser and finer ones that the data speak for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.clusters.graph import KnnGraph, drop_loops
from fastcomus.clusters.mixing import MIXED, Joins, count_joins, fit_neighbors, join_communities, join_nearest

_RUNS = 3  # of Louvain, at each resolution
_RESOLUTIONS = (4.0, 6.0)
_MIXED = (0.8 * MIXED, MIXED, 1.25 * MIXED)  # from which on two parts may be thought one
_ALIKE = 0.1  # relative difference of numbers that agree
_FINE_RESOLUTION = 12.0
_NEAR, _FAR = 4 / 3, 4  # times the number, between which coarser and finer ones lie


@dataclass(frozen=True)
class Granularity:
    """What the graph says of other numbers of clusters than k.

    Attributes:
        low: The smallest number that other runs and bounds of mixing give, at most k.
        high: The largest, at least k.
        certainty: The share of these that differ from k by at most a tenth, in [0, 1].
        coarse: A smaller number that the data speak for, or 0 for none.
        fine: A larger one, or 0 for none.
        tried: Numbers of clusters, ascending.
        mixing: For each of them, how much the two that mix most do so, in [0, 2].
    """

    low: int
    high: int
    certainty: float
    coarse: int
    fine: int
    tried: tuple[int, ...] = ()
    mixing: tuple[float, ...] = ()


def weigh_count(graph: KnnGraph, k: int, seed: int) -> Granularity:
    """Weigh the number of clusters that `count_unmixed` found against others.

    A coarser or finer number is the one, between 4/3 and 4 times fewer or more, after whose joins the next pair mixes
    least in proportion to the pair joined last.

    Args:
        graph: Of N nodes.
        k: The number of clusters found.
        seed: For the order in which nodes are visited.

    Returns:
        Range, certainty, a coarser and a finer number.
    """
    n = graph.affinity.shape[0]
    if graph.nearest is None:
        affinity = drop_loops(graph.affinity)
    else:
        affinity = join_nearest(graph.nearest[:, : min(fit_neighbors(n / k), graph.nearest.shape[1])])
    runs = [join_communities(affinity, one, seed + run) for one in _RESOLUTIONS for run in range(_RUNS)]
    counts = np.array([max(2, _count_parts(joins) - count_joins(joins, mixed)) for joins in runs for mixed in _MIXED])
    fine = join_communities(affinity, max(_FINE_RESOLUTION, _RESOLUTIONS[-1] * _FAR), seed)
    parts = _count_parts(fine)
    tried = parts - np.arange(len(fine.mixing))  # before each join
    shown = tried <= _FAR * k
    return Granularity(
        low=min(k, int(counts.min())),
        high=max(k, int(counts.max())),
        certainty=float((np.abs(counts / k - 1) <= _ALIKE).mean()),
        coarse=_pick_step(tried, fine.mixing, max(2, k / _FAR), k / _NEAR),
        fine=_pick_step(tried, fine.mixing, _NEAR * k, min(_FAR * k, n / 3)),
        tried=tuple(tried[shown][::-1].tolist()),
        mixing=tuple(fine.mixing[shown][::-1].tolist()),
    )


def _count_parts(joins: Joins) -> int:
    return int(joins.parts.max()) + 1


def _pick_step(tried: np.ndarray, mixing: np.ndarray, least: float, most: float) -> int:
    """Pick the number in [least, most] before whose next join mixing falls most; 0 for none."""
    inside = [join for join in range(1, len(tried)) if least <= tried[join] <= most]
    falls = [mixing[join - 1] / max(mixing[join], 1e-3) for join in inside]
    return int(tried[inside[int(np.argmax(falls))]]) if inside else 0
