"""Whether photographs show one object each or several, judged from some of them that were looked at both ways.

Where photographs show one object each, the saliency map's mask is in one piece, and is about as like the objects of
other photographs as its parts are. Where they show several, the mask falls into pieces, or joins objects of different
kinds: what it shows is like nothing else, while each object has its like in other photographs. The evidence of a
photograph for several objects is

    5 (1 - share of the mask's largest piece) + 2.5 (likeness of the part that is likest - likeness of the whole),

likeness being the mean cosine of an embedding with the 5 nearest ones of other photographs, in units of how much larger
that is on average than the cosine with any. Several it is where the mean over the photographs is above 1. A single
photograph says little: the mean is meant (`bench/several.py`).

Photographs of nearly the same, such as frames of a video, say nothing about each other: those whose wholes are five
times nearer than embeddings are on average (by one minus the cosine) are not compared. Of few photographs of many kinds
most have nothing of their kind to be like, which makes the evidence larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy import ndimage

from fastcomus.store.embeddings import extract_embeddings, normalise_rows
from fastcomus.store.objects_table import decode_mask

_NEIGHBORS = 5
_PIECES, _LIKENESS = 5.0, 2.5
_EVIDENCE = 1.0
_LEAST_UNIT = 1e-3  # where all embeddings are the same
_NEARLY_THE_SAME = 0.2  # of the mean distance


@dataclass(frozen=True)
class Verdict:
    """What some photographs show.

    Attributes:
        photographs: How many were judged.
        evidence: Their mean evidence for several objects.
    """

    photographs: int
    evidence: float

    @property
    def is_several(self) -> bool:
        """Whether they show several objects each."""
        return self.evidence > _EVIDENCE


def judge_objects(one: pa.Table, several: pa.Table) -> Verdict:
    """Judge photographs by their objects as `--objects one` and `--objects several` find them.

    Args:
        one: Rows of `make_object_schema`; of several in a photograph the largest counts.
        several: The same.

    Returns:
        The verdict on the photographs that have objects in both; without any, or with one alone, the evidence is 0.
    """
    wholes = _select_largest(one)
    joined = pa.concat_tables([wholes, several])
    _, owner = np.unique(joined["image"].to_numpy(), return_inverse=True)
    count = len(wholes)
    likeness = _compute_likeness(extract_embeddings(joined), owner, count)
    evidence = []
    for number, row in enumerate(wholes.select(["mask", "height", "width"]).to_pylist()):
        parts = count + np.flatnonzero(owner[count:] == owner[number])
        if len(parts):
            gain = likeness[parts].max() - likeness[number]
            pieces = 1 - _measure_largest_piece(decode_mask(row["mask"], row["height"], row["width"]))
            evidence.append(_PIECES * pieces + _LIKENESS * gain)
    return Verdict(len(evidence), float(np.mean(evidence)) if len(evidence) > 1 else 0.0)


def _select_largest(objects: pa.Table) -> pa.Table:
    """The rows of each image's largest object."""
    images, areas = objects["image"].to_numpy(), objects["area"].to_numpy()
    order = np.lexsort((-areas, images))
    _, first = np.unique(images[order], return_index=True)
    return objects.take(pa.array(order[first]))


def _compute_likeness(embeddings: np.ndarray, owner: np.ndarray, wholes: int) -> np.ndarray:
    """The likeness (N,) of embeddings (N, C) of photographs `owner` (N,), the first of which are wholes."""
    rows = normalise_rows(embeddings)
    cosines = rows @ rows.T
    is_same = np.eye(owner.max(initial=-1) + 1, dtype=bool)
    near = 1 - cosines[:wholes, :wholes] < _NEARLY_THE_SAME * (1 - cosines.mean() if len(rows) else 0)
    is_same[np.ix_(owner[:wholes], owner[:wholes])] |= near
    compared = np.ma.array(cosines, mask=is_same[np.ix_(owner, owner)])
    nearest = -np.ma.sort(-compared, axis=1)[:, :_NEIGHBORS].mean(axis=1)
    unit = nearest.mean() - compared.mean()
    likeness: np.ndarray = (nearest / max(unit, _LEAST_UNIT)).filled(0)
    return likeness


def _measure_largest_piece(mask: np.ndarray) -> float:
    """The share of a mask (H, W) bool that its largest connected piece has."""
    pieces, _ = ndimage.label(mask)
    return float(np.bincount(pieces[mask]).max() / mask.sum())
