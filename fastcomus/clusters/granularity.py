"""How sure a number of clusters is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.clusters.communities import fit_affinity
from fastcomus.clusters.graph import KnnGraph
from fastcomus.clusters.mixing import MIXED, Joins, count_joins, count_with_fewest, join_communities

_RUNS = 3  # of Louvain, at each resolution
_RESOLUTIONS = (4.0, 6.0)
_MIXED = (0.8 * MIXED, MIXED, 1.25 * MIXED)  # from which on two parts may be thought one
_ALIKE = 0.1  # relative difference of numbers that agree
FINE_RESOLUTION = 24.0
_SURE = 0.6
_FAR = 4  # times the number, up to which others are shown


@dataclass(frozen=True)
class Granularity:
    """What the graph says of other numbers of clusters than k.

    Attributes:
        low: The smallest number that other runs and bounds of mixing give, at most k.
        high: The largest, at least k.
        certainty: The share of these that differ from k by at most a tenth, in [0, 1].
        among_fewest: The number found in the graph of the fewest neighbours, which reach least into other classes.
        tried: Numbers of clusters, ascending.
        mixing: For each of them, how much the two that mix most do so, in [0, 2].
    """

    low: int
    high: int
    certainty: float
    among_fewest: int
    tried: tuple[int, ...] = ()
    mixing: tuple[float, ...] = ()

    def is_unsure(self) -> bool:
        """Tell whether most runs disagree, or some find far fewer or more."""
        return self.certainty < _SURE or max(self.high, self.among_fewest) > _FAR * self.low


def weigh_count(graph: KnnGraph, k: int, seed: int) -> Granularity:
    """Weigh the number of clusters that `count_unmixed` found against others.

    Args:
        graph: Of N nodes.
        k: The number of clusters found.
        seed: For the order in which nodes are visited.

    Returns:
        Range and certainty, and how much clusters mix for other numbers.
    """
    affinity = fit_affinity(graph, k)
    runs = [join_communities(affinity, one, seed + run) for one in _RESOLUTIONS for run in range(_RUNS)]
    counts = np.array([max(2, _count_parts(joins) - count_joins(joins, mixed)) for joins in runs for mixed in _MIXED])
    fine = join_communities(affinity, FINE_RESOLUTION, seed)
    tried = _count_parts(fine) - np.arange(len(fine.mixing))  # before each join
    shown = tried <= _FAR * k
    return Granularity(
        low=min(k, int(counts.min())),
        high=max(k, int(counts.max())),
        certainty=float((np.abs(counts / k - 1) <= _ALIKE).mean()),
        among_fewest=k if graph.nearest is None else count_with_fewest(graph, seed),
        tried=tuple(tried[shown][::-1].tolist()),
        mixing=tuple(fine.mixing[shown][::-1].tolist()),
    )


def _count_parts(joins: Joins) -> int:
    return int(joins.parts.max()) + 1
