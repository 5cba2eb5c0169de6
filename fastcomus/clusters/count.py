"""Communities of a graph, and the number of clusters it suggests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from fastcomus.clusters.granularity import Granularity
from fastcomus.clusters.graph import drop_loops


@dataclass(frozen=True)
class SuggestedCounts:
    """The number of clusters that each criterion suggests. The curves are empty for fewer than 4 objects.

    Attributes:
        objects: N.
        counts: k >= 2 by criterion of `config.COUNT_CRITERIA`.
        tried: The numbers of clusters tried, ascending.
        modularities: The modularity of the clustering for each number tried.
        eigenvalues: The smallest of the normalised Laplacian, ascending.
        granularity: How sure the number by mixing is, and a coarser and a finer one; None for fewer than 4 objects.
    """

    objects: int
    counts: dict[str, int]
    tried: tuple[int, ...] = ()
    modularities: tuple[float, ...] = ()
    eigenvalues: tuple[float, ...] = ()
    granularity: Granularity | None = None


def find_communities(affinity: csr_array, resolution: float, seed: int) -> np.ndarray:
    """Partition a graph by modularity with the Leiden algorithm (Traag et al. 2019).

    Args:
        affinity: W, (N, N) symmetric; its diagonal is ignored.
        resolution: Above 0; higher values give more communities.
        seed: For the order in which nodes are visited.

    Returns:
        Labels (N,) int64 from 0.
    """
    from sknetwork.clustering import Leiden

    found = Leiden(resolution=resolution, random_state=seed).fit_predict(csr_matrix(drop_loops(affinity)))
    return np.asarray(found, np.int64)


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
