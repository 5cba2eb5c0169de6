"""Communities of a graph, and how many clusters it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, csr_matrix

from fastcomus.clusters.graph import drop_loops


@dataclass(frozen=True)
class SuggestedCounts:
    """What the data say of the number of clusters.

    `objects`: N. `counts`: k >= 2 by each criterion of `config.COUNT_CRITERIA`. `tried`: ascending k, with the
    modularity of the clusters of each in `modularities`. `eigenvalues`: of the normalised Laplacian, ascending. The
    last three are empty for fewer than 4 objects.
    """

    objects: int
    counts: dict[str, int]
    tried: tuple[int, ...] = ()
    modularities: tuple[float, ...] = ()
    eigenvalues: tuple[float, ...] = ()


def find_communities(affinity: csr_array, resolution: float, seed: int) -> np.ndarray:
    """(N,) int64 labels from 0: Leiden's partition of W by modularity (Traag et al. 2019).

    `affinity`: (N, N) symmetric; loops play no part. `resolution` above 0: higher gives more communities.
    """
    from sknetwork.clustering import Leiden

    found = Leiden(resolution=resolution, random_state=seed).fit_predict(csr_matrix(drop_loops(affinity)))
    return np.asarray(found, np.int64)


def compute_modularity(affinity: csr_array, labels: np.ndarray) -> float:
    """Newman's modularity of a partition of W, in [-0.5, 1). `labels`: (N,) integers from 0; loops play no part."""
    from sknetwork.clustering import get_modularity

    return float(get_modularity(csr_matrix(drop_loops(affinity)), labels))


def count_by_eigengap(eigenvalues: np.ndarray) -> int:
    """K >= 2 before the largest step; `eigenvalues`: (C,) of the normalised Laplacian, ascending, C >= 3."""
    return int(np.argmax(np.diff(eigenvalues)[1:])) + 2
