"""Objects that belong with some examples rather than to the cluster they are in."""

from __future__ import annotations

import numpy as np

from fastcomus.store.embeddings import normalise_rows

_ROWS_AT_ONCE = 8_192


def find_alike(rows: np.ndarray, labels: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Find the objects that are nearer to the mean of some examples than to the mean of their own cluster.

    The rule is that of the nearest class mean, by cosine; examples are taken out of the clusters before these are
    averaged. (Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero cost",
    2013.)

    Args:
        rows: (N, D) float32 embeddings.
        labels: (N,) integers, the cluster of each; -1 for none, which is never found.
        examples: (M,) integers, the rows of the examples, at least one.

    Returns:
        Rows, int64, without the examples; those that are nearest to the examples, less to their own cluster, first.
    """
    others = labels.copy()
    others[examples] = -1
    kept = np.flatnonzero(others >= 0)
    means = np.zeros((labels.max(initial=0) + 1, rows.shape[1]), np.float32)
    for start in range(0, len(kept), _ROWS_AT_ONCE):
        some = kept[start : start + _ROWS_AT_ONCE]
        np.add.at(means, others[some], normalise_rows(rows[some]))
    means, wanted = normalise_rows(means), normalise_rows(normalise_rows(rows[examples]).sum(axis=0, keepdims=True))[0]
    gain = np.empty(len(kept), np.float32)
    for start in range(0, len(kept), _ROWS_AT_ONCE):
        some = kept[start : start + _ROWS_AT_ONCE]
        towards = wanted - means[others[some]]
        gain[start : start + len(some)] = np.einsum("nd,nd->n", normalise_rows(rows[some]), towards)
    order = np.argsort(-gain, kind="stable")
    return kept[order[: int((gain > 0).sum())]]
