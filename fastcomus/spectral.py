"""The graph to its eigenmaps (step 5; the paper's section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array

from fastcomus.backends import Backend


@dataclass(frozen=True)
class Eigenmaps:
    """`rows`: (N, C) float32, an object a row. `eigenvalues`: (C,) float64 of the normalised Laplacian, ascending."""

    rows: np.ndarray
    eigenvalues: np.ndarray
    residual: float


def eigenmaps(affinity: csr_array, n_components: int, seed: int, backend: Backend) -> Eigenmaps:
    """The first eigenvectors of L = I - D^-1/2 W D^-1/2, the constant one kept, rescaled by D^-1/2.

    `affinity`: W, (N, N) symmetric, every row linked to another; the diagonal plays no part. `n_components` in [1, N].
    `residual`: the largest |W' v - mu v| over the eigenpairs, where W' = D^-1/2 W D^-1/2; about 1e-8 when solved.
    Raises ArithmeticError when the solver stopped short (residual above 1e-4).
    """
    # As in scikit-learn, which the original program calls, loops do not count: neither in W nor in the degrees.
    affinity = (affinity - diags_array(affinity.diagonal())).tocsr()
    affinity.eliminate_zeros()
    values, vectors = backend.eigenmaps(affinity, n_components, seed)
    scale = 1 / np.sqrt(np.asarray(affinity.sum(axis=1)).ravel().astype(np.float64))
    applied = scale[:, None] * (affinity @ (scale[:, None] * vectors))
    residual = float(np.linalg.norm(applied - vectors * values, axis=0).max())
    if not residual < 1e-4:
        raise ArithmeticError(f"the eigensolver stopped at residual {residual:.1e}; raise n_neighbors or change seed")
    return Eigenmaps((scale[:, None] * vectors).astype(np.float32), 1 - values, residual)
