"""Masks of COCO's annotations: checked before pycocotools, which trusts what it is given, draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_FARTHEST = 1_000_000  # px, of a corner from the image and of a polygon around; pycocotools counts in 32 bits


@dataclass(frozen=True)
class Annotation:
    """One object or crowd, whose segmentation `check_segmentation` returned."""

    label: int
    is_crowd: bool
    segmentation: Any


def check_segmentation(segmentation: Any, shape: tuple[int, int]) -> Any:
    """Check polygons or run lengths.

    Args:
        segmentation: As in COCO's JSON.
        shape: Height and width of the image.

    Returns:
        The polygons that enclose something, of three corners or more; or the run lengths.

    Raises:
        ValueError: With what is wrong, in a few words.
    """
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if _check_polygon(part)]
        if not polygons:
            raise ValueError("has no polygon of three corners or more")
        return polygons
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError("is neither polygons nor run lengths with their size")
    if size != list(shape):
        raise ValueError(f"has run lengths for {size[1]} x {size[0]} px where its image is {shape[1]} x {shape[0]}")
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _unpack_counts(counts)
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("has run lengths that are no whole numbers from 0 on")
    if sum(counts) != shape[0] * shape[1]:
        raise ValueError(
            f"has run lengths for {sum(counts)} pixels where {shape[1]} x {shape[0]} are {shape[0] * shape[1]}"
        )
    return segmentation


def draw_masks(annotations: Sequence[Annotation], shape: tuple[int, int]) -> np.ndarray:
    """Draw checked annotations: crowds first, then single objects from large to small, the first of equals on top.

    Args:
        annotations: Of one image.
        shape: Its height and width.

    Returns:
        (H, W) uint8, 0 where there is none.
    """
    labels = np.zeros(shape, np.uint8)
    if not annotations:
        return labels
    encoded = [pack_run_lengths(one.segmentation, shape) for one in annotations]
    sizes = coco_mask.area(encoded)
    order = sorted(range(len(encoded)), key=lambda i: (not annotations[i].is_crowd, -int(sizes[i]), -i))
    for i in order:
        labels[coco_mask.decode(encoded[i]).astype(bool)] = annotations[i].label
    return labels


def _check_polygon(part: Any) -> bool:
    """Whether a polygon has three corners or more."""
    if not isinstance(part, list) or not all(type(value) in (int, float) for value in part):
        raise ValueError("has a polygon that is no list of numbers x, y, x, y, ...")
    if len(part) % 2:
        raise ValueError(f"has a polygon of {len(part)} numbers, which are no pairs x, y")
    corners = np.array([value if abs(value) <= _FARTHEST else math.inf for value in part]).reshape(-1, 2)
    if np.isinf(corners).any() or np.abs(np.diff(corners, axis=0)).sum() > _FARTHEST:
        raise ValueError("has a polygon far outside its image")
    return len(corners) >= 3


def _unpack_counts(text: str) -> list[int]:
    """Unpack COCO's run lengths: 5 bits a character, low ones first, from the fourth on as differences."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode(errors="replace"):
        bits = code - 48
        if not 0 <= bits < 64:
            raise ValueError("has packed run lengths with a character that none have")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("has packed run lengths that are cut off")
    return counts


def pack_run_lengths(segmentation: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Turn polygons, or run lengths packed or not, into packed run lengths."""
    height, width = shape
    if isinstance(segmentation, list):
        return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    if isinstance(segmentation["counts"], list):
        return dict(coco_mask.frPyObjects(segmentation, height, width))
    return {"size": [height, width], "counts": segmentation["counts"]}
