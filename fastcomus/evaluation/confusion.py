"""Confusion matrix of one image: the number of pixels that each cluster label shares with each label of the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.truth import VOID

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend


def compute_confusion_matrix(predicted: np.ndarray, truth: np.ndarray, n_clusters: int, backend: Backend) -> np.ndarray:
    """Count pixels by cluster label and label of the truth.

    Args:
        predicted: (H, W) integers in [0, n_clusters].
        truth: (H, W) integers in [0, 255].
        n_clusters: Highest cluster label.
        backend: What counts.

    Returns:
        (n_clusters + 1, 256) int64; the last column is void.

    Raises:
        InputError: A label lies outside its range.
    """
    assert predicted.shape == truth.shape, (predicted.shape, truth.shape)
    if predicted.size == 0:
        return np.zeros((n_clusters + 1, VOID + 1), np.int64)
    if wrong := _find_label_outside(predicted, n_clusters):
        raise InputError(
            f"The class map has the label {wrong} where k = {n_clusters} allows 0 to {n_clusters}; predict again."
        )
    if wrong := _find_label_outside(truth, VOID):
        raise InputError(
            f"The truth has the label {wrong} where labels are 0 to {VOID - 1} (and {VOID} is void); number its "
            "classes anew."
        )
    return backend.count_confusion(predicted, truth.astype(np.uint8, copy=False), n_clusters + 1)


def _find_label_outside(labels: np.ndarray, highest: int) -> int:
    """Return a label below 0 or above `highest`; 0 where there is none."""
    lowest = int(labels.min())
    return lowest if lowest < 0 else int(labels.max()) if labels.max() > highest else 0
