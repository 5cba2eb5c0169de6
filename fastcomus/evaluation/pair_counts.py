"""How often cluster labels and classes meet, counted image by image, and what the labels of the truth mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.errors import InputError
from fastcomus.evaluation.confusion import compute_confusion_matrix
from fastcomus.evaluation.truth.truth import MAX_CLASSES, VOID, Truth, read_mask

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from fastcomus.backends.interface import Backend

OBJECT_OR_NOT = ("background", "object")
_LOOKED_AT = 1000  # most masks of a folder, beside those of the run's images, that are asked whether they hold classes
_NO_CLASS = 128  # a mask of 0 and one label from here on shows an object and no class


@dataclass(frozen=True)
class PairCounts:
    """The counts that all scores are computed from.

    Attributes:
        confusion: (k + 1, C + 1) int64, pixels by cluster label and class, pooled over the images; C + 1 = 255
            without class names.
        classes: The names; () without.
        foreground_ious: IoU of object-or-not of every image, NaN where neither side has an object.
        missing: Number of images that have truth but no class map.
        class_shares: (C + 1,) float64, the mean share of an image that a class takes, over the images that have it
            and without void; NaN for a class that no image has.
        per_image: (images, (k + 1)(C + 1)) int64, the matrix of each image as a row, or None. It is sparse and takes
            about 12 bytes for each pair of labels that meets in an image.
        object_or_not: Whether the truth tells object from background alone; C is 1 then.
    """

    confusion: np.ndarray
    classes: tuple[str, ...]
    foreground_ious: tuple[float, ...]
    missing: int
    class_shares: np.ndarray
    per_image: csr_array | None
    object_or_not: bool = False


def count_pairs(
    images: Sequence[str],
    read: Callable[[str], np.ndarray],
    truth: Truth,
    n_clusters: int,
    backend: Backend,
    *,
    workers: int = 1,
    keep_images: bool = False,
    on_image: Callable[[int], None] = lambda count: None,
) -> PairCounts:
    """Count in one pass how often cluster labels and classes meet; few images are in memory at a time.

    Masks that hold only 0 and 255, or without class names only 0 and one label of 128 or more, tell object from
    background: that label is the object then. Where 255 stands beside other labels, in any mask of the folder, it is
    void.

    Args:
        images: Names, each once; those without truth are passed over.
        read: Gives the class map of an image by name: (H, W) integers, 0 background, c + 1 for cluster c.
        truth: The true masks.
        n_clusters: k; labels lie in [0, k].
        backend: What counts.
        workers: Number of threads that read and count.
        keep_images: Whether to fill `per_image`, which the bootstrap needs.
        on_image: Called with 1 after every image.

    Returns:
        The counts.

    Raises:
        InputError: No image has truth, the truth has no object, masks differ in size from their images (the message
            counts them), or a label lies outside the clusters or the classes.
    """
    scored = [name for name in images if name in truth.files]
    assert len(set(scored)) == len(scored), "an image came twice"
    if not scored:
        raise InputError(
            f"None of the {len(truth.files)} images with truth in {truth.place} has a class map; "
            "predict these images first."
        )

    def count(name: str) -> np.ndarray | str:
        """Return the matrix of an image, or how the sizes differ."""
        predicted, labels = read(name), truth.read(name)
        if predicted.shape != labels.shape:
            return f"{_format_size(labels)} px where {name} has {_format_size(predicted)}"
        try:
            return compute_confusion_matrix(predicted, labels, n_clusters, backend)
        except InputError as error:
            raise InputError(f"{name} against {truth.files[name]}: {error}") from error

    tally = _Tally(n_clusters, keep_images)
    wrong_sizes: dict[str, str] = {}
    for name, counted in zip(scored, read_ahead(count, scored, workers), strict=True):
        if isinstance(counted, str):
            wrong_sizes[name] = counted
        else:
            tally.add(counted)
        on_image(1)
    if wrong_sizes:
        first, sizes = next(iter(wrong_sizes.items()))
        raise InputError(
            f"{_count(wrong_sizes, 'mask')} of {len(scored)} in {truth.place} differ in size from their image: "
            f"{truth.files[first]}, the first, is {sizes} (width x height); give masks of the images' own size."
        )
    object_label = _find_object_label(tally.total, truth)
    if not object_label:
        _check_labels(tally, truth, scored)
    return tally.finish(truth, object_label, len(truth.files) - len(scored))


class _Tally:
    """Sums over images; all 256 labels are counted until it is known what they mean."""

    def __init__(self, n_clusters: int, keep_images: bool) -> None:
        self.total = np.zeros((n_clusters + 1, VOID + 1), np.int64)
        self.highest: list[int] = []  # label of each image, without void
        self._shares, self._having = np.zeros(VOID), np.zeros(VOID, np.int64)
        self._foregrounds: list[np.ndarray] = []  # (2, 3): no cluster, any; background, any class, void
        self._kept: list[tuple[np.ndarray, np.ndarray]] | None = [] if keep_images else None

    def add(self, confusion: np.ndarray) -> None:
        self.total += confusion
        in_truth = confusion.sum(axis=0)[:VOID]
        self.highest.append(int(in_truth.nonzero()[0].max(initial=0)))
        self._shares += in_truth / max(1, in_truth.sum())
        self._having += in_truth > 0
        columns = (slice(1), slice(1, VOID), slice(VOID, None))
        self._foregrounds.append(
            np.array([[confusion[rows, one].sum() for one in columns] for rows in (slice(1), slice(1, None))])
        )
        if self._kept is not None:
            pairs = np.flatnonzero(confusion)
            self._kept.append((pairs.astype(np.int32), confusion.ravel()[pairs]))

    def finish(self, truth: Truth, object_label: int, missing: int) -> PairCounts:
        foregrounds, classes = np.stack(self._foregrounds), truth.classes
        if object_label:
            columns, classes = np.array([0, object_label]), classes or OBJECT_OR_NOT
            foregrounds = np.stack([foregrounds[..., 0], foregrounds[..., 1:].sum(axis=2)], axis=2)
            in_truth = foregrounds.sum(axis=1)
            shares = (in_truth / np.maximum(1, in_truth.sum(axis=1, keepdims=True))).sum(axis=0)
            having = (in_truth > 0).sum(axis=0)
        else:
            columns = np.arange(len(classes) or MAX_CLASSES)
            shares, having = self._shares[columns], self._having[columns]
        per_image = None
        if self._kept is not None:
            pairs = np.arange(len(self.total))[:, None] * (VOID + 1) + columns
            per_image = _stack_rows(self._kept, self.total.size)[:, pairs.ravel()]
        return PairCounts(
            self.total[:, columns],
            classes,
            tuple(compute_foreground_iou(one[:, :2]) for one in foregrounds),
            missing,
            np.divide(shares, having, where=having > 0, out=np.full(len(columns), math.nan)),
            per_image,
            bool(object_label),
        )


def compute_foreground_iou(confusion: np.ndarray) -> float:
    """Compute the IoU of all labels above 0 on both sides from (k + 1, C + 1) counts; NaN without any."""
    union = int(confusion.sum() - confusion[0, 0])
    return int(confusion[1:, 1:].sum()) / union if union else math.nan


def _find_object_label(total: np.ndarray, truth: Truth) -> int:
    """Return the one label that means object, where the masks tell only object from background; else 0."""
    labels = np.flatnonzero(total.any(axis=0)).tolist()
    if len(labels) != 2 or labels[0] != 0 or labels[1] < _NO_CLASS:
        return 0
    if truth.classes and (len(truth.classes) != 2 or labels[1] != VOID):
        return 0
    others = list(truth.list_others())
    for file in others[:: len(others) // _LOOKED_AT + 1]:
        with suppress(InputError):  # it may be no mask at all
            if not np.isin(read_mask(file), labels).all():
                return 0
    return int(labels[1])


def _check_labels(tally: _Tally, truth: Truth, scored: Sequence[str]) -> None:
    """Raise InputError where labels lie beyond the classes, or no object can be scored."""
    in_truth = tally.total.sum(axis=0)
    void, labels = int(in_truth[VOID]), np.flatnonzero(in_truth[:VOID])
    if not labels.size:
        raise InputError(f"The masks in {truth.place} are void ({VOID}) everywhere; nothing can be scored.")
    last = (len(truth.classes) or MAX_CLASSES) - 1
    if beyond := labels[labels > last].tolist():
        images = [name for name, highest in zip(scored, tally.highest, strict=True) if highest > last]
        raise InputError(
            f"{_count(images, 'mask')} of {len(scored)} in {truth.place} have labels above {last}, where the classes "
            f"end: {', '.join(map(str, beyond[:8]))}{', ...' * (len(beyond) > 8)}, first in {truth.files[images[0]]}; "
            "give a classes file with a line for every label, background first."
        )
    if labels[-1] == 0:
        raise InputError(
            f"No mask of the {len(scored)} scored images in {truth.place} has an object: every pixel is background (0)"
            + (f" or void ({VOID}); where {VOID} is the object, leave --classes out." if void else "; check --truth.")
        )
    if not truth.classes and labels[-1] >= _NO_CLASS and void > in_truth[1:VOID].sum():
        raise InputError(
            f"Most pixels above 0 of the masks in {truth.place} are {VOID}, and the rest have {len(labels) - 1} other "
            "labels, as masks of object or not with soft edges have; save them with 0 and 255 alone, or give --classes."
        )


def _stack_rows(rows: list[tuple[np.ndarray, np.ndarray]], width: int) -> csr_array:
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *(len(pairs) for pairs, _ in rows)])
    columns, values = (np.concatenate(part) for part in zip(*rows, strict=True))
    return csr_array((values, columns, ends), shape=(len(rows), width))


def _format_size(labels: np.ndarray) -> str:
    return " x ".join(str(length) for length in reversed(labels.shape))


def _count(what: Sequence[str] | dict[str, str], name: str) -> str:
    return f"{len(what)} {name}{'s' * (len(what) > 1)}"
