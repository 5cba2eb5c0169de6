"""The number of clusters that a graph suggests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from fastcomus.clusters.granularity import Granularity
from fastcomus.clusters.graph import drop_loops
from fastcomus.clusters.levels import Levels, list_parts


@dataclass(frozen=True)
class SuggestedCounts:
    """The number of clusters that each criterion suggests. The curves are empty for fewer than 4 objects.

    Attributes:
        objects: N.
        counts: k >= 2 by criterion of `config.COUNT_CRITERIA`.
        tried: The numbers of clusters tried, ascending.
        modularities: The modularity of the clustering for each number tried.
        eigenvalues: The smallest of the normalised Laplacian, ascending.
        granularity: How sure the number by mixing is; None for fewer than 4 objects.
        labels: (N,) int32, the clusters of that number; None for fewer than 4 objects.
        levels: Coarser and finer clusters around them.
    """

    objects: int
    counts: dict[str, int]
    tried: tuple[int, ...] = ()
    modularities: tuple[float, ...] = ()
    eigenvalues: tuple[float, ...] = ()
    granularity: Granularity | None = None
    labels: np.ndarray | None = None
    levels: Levels = field(default_factory=Levels)

    def summarise(self) -> dict[str, Any]:
        """Return all of it as plain numbers, instead of labels which clusters are joined and split.

        `coarse` lists for each coarser cluster those that it joins, where these are several; `fine` for each cluster
        that is split its finer ones.
        """
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("labels", "levels")}
        found["granularity"] = asdict(self.granularity) if self.granularity else None
        if self.labels is not None:
            coarse, fine = self.levels.coarse, self.levels.fine
            found["coarse"] = {} if coarse is None else list_parts(coarse, self.labels)
            found["fine"] = {} if fine is None else list_parts(self.labels, fine)
        return found


def compute_modularity(affinity: csr_array, labels: np.ndarray) -> float:
    """Compute Newman's modularity of a partition.

    Args:
        affinity: W, (N, N) symmetric; its diagonal is ignored.
        labels: (N,) integers from 0.

    Returns:
        A number in [-0.5, 1).
    """
    from sknetwork.clustering import get_modularity

    return float(get_modularity(csr_matrix(drop_loops(affinity)), labels))


def count_by_eigengap(eigenvalues: np.ndarray) -> int:
    """Count the eigenvalues before the largest gap, at least 2.

    Args:
        eigenvalues: (C,) of the normalised Laplacian, ascending, C >= 3.

    Returns:
        k, in [2, C - 1].
    """
    return int(np.argmax(np.diff(eigenvalues)[1:])) + 2
