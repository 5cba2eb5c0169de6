"""Confusion matrix of one image: the number of pixels that each cluster label shares with each class."""

from __future__ import annotations

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.errors import InputError
from fastcomus.evaluation.truth.truth import MAX_CLASSES, VOID


def compute_confusion_matrix(
    predicted: np.ndarray, truth: np.ndarray, n_clusters: int, n_classes: int, backend: Backend
) -> np.ndarray:
    """Count pixels by cluster label and class, (n_clusters + 1, n_classes + 1) int64; void pixels are left out.

    Args:
        predicted: (H, W) integers in [0, n_clusters].
        truth: (H, W) integers in [0, n_classes], or 255 (void).
        n_clusters: Highest cluster label.
        n_classes: Highest class label, at most 254.
        backend: What counts.

    Raises:
        InputError: The sizes differ or a label lies outside its range.
    """
    assert n_classes < MAX_CLASSES, n_classes
    if predicted.shape != truth.shape:
        raise InputError(
            f"The class map is {_format_size(predicted)} pixels and the truth {_format_size(truth)} (width x height); "
            "give masks of the images' own size."
        )
    if predicted.size == 0:
        return np.zeros((n_clusters + 1, n_classes + 1), np.int64)
    for labels, highest, owner in ((predicted, n_clusters, "class map"), (truth, VOID, "truth")):
        if labels.min() < 0 or labels.max() > highest:
            wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
            raise InputError(_explain_bad_label(owner, wrong, n_clusters if owner == "class map" else n_classes))
    # The backend counts all 256 labels, so that void and labels above the classes are found by the same count.
    counts = backend.count_confusion(predicted, truth.astype(np.uint8, copy=False), n_clusters + 1)
    beyond = np.flatnonzero(counts[:, n_classes + 1 : VOID].any(axis=0))
    if beyond.size:
        raise InputError(_explain_bad_label("truth", n_classes + 1 + int(beyond[-1]), n_classes))
    return counts[:, : n_classes + 1]


def _format_size(labels: np.ndarray) -> str:
    return " x ".join(str(length) for length in reversed(labels.shape))


def _explain_bad_label(owner: str, label: int, highest: int) -> str:
    if owner == "truth":
        return (
            f"The truth has the label {label} where the classes end at {highest} (and {VOID} is void); "
            "give a classes file with a line for every label, background first."
        )
    return f"The class map has the label {label} where k = {highest} allows 0 to {highest}; predict again."
