"""Whether what is to be clustered suits the settings; asked before anything is computed."""

from __future__ import annotations

import numpy as np

from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig
from fastcomus.errors import InputError

_ROUNDING = 1e-5  # of a row's length; embeddings of one photograph differ by less from batch to batch
_ROWS_AT_ONCE = 256


def check_count(config: ClusterConfig, rows: np.ndarray) -> None:
    """Check that the objects suffice for the number of clusters asked for.

    Args:
        config: Has `k` (0: to be estimated) and `method`.
        rows: (N, D) embeddings.

    Raises:
        InputError: If k exceeds the number of (different) objects, or does not suit the method.
    """
    n = len(rows)
    if n < 2:
        raise InputError(f"clusters need at least 2 objects; got {n}. Add images.")
    if config.k > n:
        raise InputError(f"k must lie in [2, N]; got k={config.k} with N={n} objects. Lower --k or add images.")
    if config.method in GRAPHLESS_METHODS and not config.k:
        raise InputError(f"method {config.method} needs the number of clusters; give --k K, or --method spectral.")
    check_components(config)
    least = max(config.k, 2)
    different = _count_different_rows(rows, least)
    if different < least:
        raise InputError(
            f"{least} clusters need as many different objects; got {different} different ones among N={n}. "
            + ("Lower --k or add images." if different > 1 else "Add images that are no copies of one another.")
        )


def _count_different_rows(rows: np.ndarray, enough: int) -> int:
    """Count the rows that differ by more than rounding, up to `enough`, which the first rows usually reach."""
    found = np.empty((0, rows.shape[1]))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
        squared = (block**2).sum(axis=1)
        least, more = _ROUNDING**2 * squared, []
        distances = squared[:, None] + (found**2).sum(axis=1) - 2 * block @ found.T
        is_new = (distances > least[:, None]).all(axis=1)
        while is_new.any():
            more.append(block[is_new.argmax()])
            if len(found) + len(more) == enough:
                return enough
            is_new &= ((block - more[-1]) ** 2).sum(axis=1) > least
        found = np.concatenate([found, *(one[None] for one in more)])
    return len(found)


def check_graph_count(config: ClusterConfig, nodes: int, rows: np.ndarray | None) -> None:
    """Check that a graph of the user's own suits the settings.

    Args:
        config: Has `k` (0: to be estimated) and `method`.
        nodes: N, of the graph.
        rows: (N, D) embeddings of the nodes, or None.

    Raises:
        InputError: If it does not.
    """
    if rows is not None and len(rows) != nodes:
        raise InputError(
            f"the graph has {nodes} nodes and there are {len(rows)} objects; it needs a node for each, in their order."
        )
    if config.fit_on:
        raise InputError("--fit-on draws a sample of embeddings, and a graph is clustered whole; leave out either.")
    if config.method in GRAPHLESS_METHODS:
        raise InputError(f"method {config.method} uses no graph; leave out --graph, or give --method spectral.")
    if rows is None and config.method != "spectral":
        raise InputError(f"method {config.method} needs embeddings besides the graph; give them, or --method spectral.")
    if config.k > nodes:
        raise InputError(f"k must lie in [2, N]; got k={config.k} with N={nodes} nodes of the graph. Lower --k.")
    check_components(config)


def check_components(config: ClusterConfig) -> None:
    """Check that QR, which makes a cluster per direction, has enough of them; raise InputError otherwise."""
    if config.method == "spectral" and config.assign == "qr" and 0 < config.n_components < config.k:
        raise InputError(
            f"--assign qr needs as many eigenvectors as clusters; got n_components={config.n_components} with "
            f"k={config.k}. Leave out --n-components, or give --assign kmeans."
        )
