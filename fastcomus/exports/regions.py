"""Connected regions of a class map, and their outlines as polygons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree


@dataclass(frozen=True)
class Region:
    """Pixels of one class that touch, at edges or corners.

    `class_id`: 1 or more. `mask`: (h, w) bool, cut to the region's box, whose first pixel is column `x0`, row `y0`.
    """

    class_id: int
    mask: np.ndarray
    x0: int
    y0: int

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    def whole(self, shape: tuple[int, ...]) -> np.ndarray:
        """The mask at the image's size, (H, W) uint8, in columns as pycocotools wants it."""
        canvas = np.zeros(shape, np.uint8, order="F")
        canvas[self.y0 : self.y0 + self.mask.shape[0], self.x0 : self.x0 + self.mask.shape[1]] = self.mask
        return canvas


def regions(labels: np.ndarray) -> Iterator[Region]:
    """The regions of every class of `labels` (H, W), background 0 apart: class by class, from top to bottom."""
    for class_id, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        numbered, _ = ndimage.label(labels[box] == class_id, structure=np.ones((3, 3)))
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            mask = numbered[rows, columns] == number
            yield Region(class_id, mask, box[1].start + columns.start, box[0].start + rows.start)


def outline(region: Region) -> np.ndarray:
    """One closed polygon around a region, (n, 2) float64 x, y in pixels of the image, whose corners are at (0, 0) and
    (W, H); the last point is not the first again.

    It runs half-way between pixels inside and outside, so that the pixels whose centres it encloses (even-odd) are
    the region exactly, in every outline however small. Holes are joined to it by bridges of no width.
    """
    from skimage.measure import find_contours

    contours = find_contours(np.pad(region.mask, 1).astype(np.uint8), 0.5, fully_connected="high")
    rings = sorted((_without_midpoints(contour[:-1, ::-1]) for contour in contours), key=_width, reverse=True)
    return _joined(rings) + np.array([region.x0 - 0.5, region.y0 - 0.5])


def _without_midpoints(ring: np.ndarray) -> np.ndarray:
    """Without the points at which a ring goes straight on; its steps are all of the same few."""
    steps = np.roll(ring, -1, axis=0) - ring
    return ring[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]


def _width(ring: np.ndarray) -> float:
    return float(np.ptp(ring[:, 0]))


def _joined(rings: list[np.ndarray]) -> np.ndarray:
    """One line through all rings, from the first on always to the nearest of the others and back the same way.

    Such bridges cross no ring, so they stay inside the region.
    """
    line = rings[0]
    bridges = {i: _bridge(rings[0], rings[i]) for i in range(1, len(rings))}
    while bridges:
        nearest = min(bridges, key=lambda i: bridges[i][0])
        _, start, at = bridges.pop(nearest)
        where = int(np.flatnonzero((line == start).all(axis=1))[0])
        detour = np.roll(rings[nearest], -at, axis=0)
        line = np.concatenate([line[: where + 1], detour, detour[:1], line[where:]])
        for i in bridges:
            bridges[i] = min(bridges[i], _bridge(rings[nearest], rings[i]), key=lambda bridge: bridge[0])
    return line


def _bridge(from_ring: np.ndarray, to_ring: np.ndarray) -> tuple[float, np.ndarray, int]:
    """The shortest way between points of two rings: its length, its start, and its end as an index."""
    lengths, starts = KDTree(from_ring).query(to_ring)
    end = int(np.argmin(lengths))
    return float(lengths[end]), from_ring[starts[end]], end
