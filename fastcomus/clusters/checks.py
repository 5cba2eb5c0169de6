"""Whether what is to be clustered suits the settings; asked before anything is computed."""

from __future__ import annotations

import numpy as np

from fastcomus.config import GRAPHLESS_METHODS, ClusterConfig
from fastcomus.errors import InputError


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
    least, distinct = max(config.k, 2), set()
    for row in rows:  # usually stops after `least` rows
        distinct.add(row.tobytes())
        if len(distinct) == least:
            return
    raise InputError(
        f"{least} clusters need as many different objects; got {len(distinct)} different ones among N={n}. "
        + ("Lower --k or add images." if len(distinct) > 1 else "Add images that are no copies of one another.")
    )


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
