"""A graph of the user's own: read from a file of SciPy's, checked and made symmetric."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy.sparse import csr_array, issparse, load_npz

from fastcomus.errors import InputError, get_first_line, suggest_path

log = logging.getLogger("fastcomus")


def read_graph(source: Any) -> tuple[csr_array, str]:
    """Read a graph, check it and compute a digest of it.

    Args:
        source: An .npz file written by `scipy.sparse.save_npz`, or what `check_graph` takes.

    Returns:
        The graph as `check_graph` returns it, and a SHA-256 (hex) of it.

    Raises:
        InputError: The file cannot be read, or holds no such graph.
    """
    graph = check_graph(_read_file(Path(source)) if isinstance(source, Path | str) else source)
    digest = hashlib.sha256(f"graph {graph.shape}".encode())
    for part in (graph.indptr, graph.indices, graph.data):
        digest.update(np.ascontiguousarray(part).data)
    return graph, digest.hexdigest()


def check_graph(graph: Any) -> csr_array:
    """Check a graph and bring it into one form.

    Args:
        graph: (N, N) weights of links, finite and not negative: a sparse matrix or array of SciPy's, or a dense one.

    Returns:
        (N, N) float32 CSR, symmetric, with an empty diagonal and the largest weight 1. Of a graph with weights that
        differ by direction it is the mean of both.

    Raises:
        InputError: If it is not such a graph, or a node has no link to another.
    """
    if not issparse(graph):
        try:
            graph = np.asarray(graph)
        except (TypeError, ValueError) as error:
            raise InputError(f"a graph must be a matrix; NumPy makes none of it ({get_first_line(error)}).") from error
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        raise InputError(f"a graph must be square, a row and a column for each object; got shape {graph.shape}.")
    if graph.dtype.kind not in "biuf":
        raise InputError(f"the weights of a graph must be real numbers; got {graph.dtype}.")
    try:
        if hasattr(graph, "check_format"):
            graph.check_format(full_check=True)  # else places outside of the matrix are read
        links = csr_array(graph).astype(np.float64)  # a copy
    except ValueError as error:
        raise InputError(f"the graph is damaged ({get_first_line(error)}); write it again.") from error
    links.sum_duplicates()
    if not np.isfinite(links.data).all():
        broken = int((~np.isfinite(links.data)).sum())
        raise InputError(f"the weights of a graph must be finite; {broken} are NaN or infinite.")
    if (links.data < 0).any():
        raise InputError(
            f"the weights of a graph must not be negative; {int((links.data < 0).sum())} are, the least "
            f"{links.data.min():g}. Give similarities, not distances or differences."
        )
    links.setdiag(0)
    links.eliminate_zeros()
    if not links.nnz:
        raise InputError("the graph has no link between different objects; give one that has.")
    links.data /= links.data.max()
    turned = links.T.tocsr()
    if (links != turned).nnz:
        log.info("the graph has links that differ by direction; their mean counts for both.")
        links = (links + turned) * 0.5
    links = csr_array(links.astype(np.float32))
    links.eliminate_zeros()
    links.sort_indices()
    alone = np.flatnonzero(np.diff(links.indptr) == 0)
    if len(alone):
        shown = ", ".join(map(str, alone[:5])) + (", ..." if len(alone) > 5 else "")
        raise InputError(
            f"every node of a graph must have a link to another; {len(alone)} of {len(turned.indptr) - 1} have none "
            f"(nodes {shown}). Leave them out or link them."
        )
    return links


def _read_file(file: Path) -> Any:
    if not file.exists():
        raise InputError(f"there is no file {file}{suggest_path(file) or '; give an .npz of scipy.sparse.save_npz.'}")
    try:
        return load_npz(file)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        raise InputError(
            f"{file} holds no graph that can be read ({get_first_line(error)}); write it with scipy.sparse.save_npz."
        ) from error
