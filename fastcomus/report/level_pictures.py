"""What coarser and finer clusters join and split, with pictures of each part, for the page of suggest-k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastcomus.clusters.count import SuggestedCounts
from fastcomus.clusters.labels import build_clusters
from fastcomus.clusters.levels import list_parts
from fastcomus.report.findings import ShownObjects
from fastcomus.report.notebook import draw_pictures
from fastcomus.report.samples import sample_core

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

_STEPS, _PARTS, _PICTURES = 12, 6, 4  # at most, of each level, step and part


@dataclass(frozen=True)
class ShownStep:
    """Clusters that become one, or one that becomes several.

    Attributes:
        title: Which they are.
        parts: The parts: what is said of each, and <img> elements of typical objects.
        more: Parts that are not shown.
    """

    title: str
    parts: Sequence[tuple[str, Sequence[str]]]
    more: int


def draw_levels(
    suggested: SuggestedCounts, rows: np.ndarray, objects: ShownObjects | None, max_pixels: int, backend: Backend
) -> dict[str, list[ShownStep]]:
    """Draw the first joins of the coarser clusters and the first splits into finer ones.

    Args:
        suggested: Has the clusters and their levels.
        rows: (N, D) float32 embeddings; those nearest to the mean of a part are typical.
        objects: The objects on their images, or None, for no pictures.
        max_pixels: Largest image that is read.
        backend: Decodes images.

    Returns:
        "coarse" and "fine", those of them that there are.
    """
    if suggested.labels is None:
        return {}
    levels, labels = suggested.levels, suggested.labels

    def draw(steps: Mapping[int, Sequence[int]], inner: np.ndarray, is_fine: bool) -> list[ShownStep]:
        parts = build_clusters(rows, inner, int(inner.max()) + 1, 0.0)  # numbered by size already
        shown = []
        for outer, members in list(steps.items())[:_STEPS]:
            first = list(members)[:_PARTS]
            drawn = [
                (
                    f"{parts.sizes[one]} objects" if is_fine else f"cluster {one}, {parts.sizes[one]} objects",
                    list(draw_pictures(sample_core(parts, one, _PICTURES), objects, max_pixels, backend)),
                )
                for one in first
            ]
            named = " + ".join(map(str, members[:_PARTS])) + (" + ..." if len(members) > _PARTS else "")
            title = f"cluster {outer} in {len(members)}" if is_fine else f"clusters {named} in one"
            shown.append(ShownStep(title, drawn, len(members) - len(first)))
        return shown

    found = {}
    if levels.coarse is not None:
        found["coarse"] = draw(list_parts(levels.coarse, labels), labels, False)
    if levels.fine is not None:
        found["fine"] = draw(list_parts(labels, levels.fine), levels.fine, True)
    return found
