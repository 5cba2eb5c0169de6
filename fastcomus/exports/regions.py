"""Connected regions of a class map, and their outlines as polygons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Region:
    """Pixels of one class that touch, at edges or corners.

    Attributes:
        class_id: 1 or more.
        mask: (h, w) bool, cut to the region's bounding box.
        x0: First column of the box.
        y0: First row of the box.
    """

    class_id: int
    mask: np.ndarray
    x0: int
    y0: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.mask.sum())

    def compute_run_lengths(self, shape: tuple[int, ...]) -> list[int]:
        """Encode the mask as COCO's run lengths: down the columns, background first.

        Args:
            shape: Height and width of the image.

        Returns:
            Lengths of the runs, which sum to the image's pixels.
        """
        columns, rows = self.mask.T.nonzero()
        pixels = (columns + self.x0) * shape[0] + rows + self.y0
        breaks = np.flatnonzero(np.diff(pixels) != 1) + 1
        starts, ends = pixels[np.r_[0, breaks]], pixels[np.r_[breaks - 1, -1]] + 1
        edges = np.stack([starts, ends], axis=1).ravel()
        last = shape[0] * shape[1] - edges[-1]
        return [*np.diff(edges, prepend=0).tolist(), *([int(last)] if last else [])]


def find_regions(labels: np.ndarray) -> Iterator[Region]:
    """Find the connected regions of a class map.

    Args:
        labels: (H, W) integers, 0 for background.

    Yields:
        The regions class by class, from top to bottom.
    """
    for class_id, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        numbered, _ = ndimage.label(labels[box] == class_id, structure=np.ones((3, 3)))
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            mask = numbered[rows, columns] == number
            yield Region(class_id, mask, box[1].start + columns.start, box[0].start + rows.start)


def trace_outline(region: Region) -> np.ndarray:
    """Trace one closed polygon around a region; the pixels whose centres it encloses (even-odd) are the region exactly.

    It runs half-way between the centres of pixels inside and outside. Holes are joined to it by bridges of no width.

    Args:
        region: The region.

    Returns:
        (n, 2) float64 x, y in pixels of the image, whose corners lie at (0, 0) and (W, H). The first point is not
        repeated at the end.
    """
    from skimage.measure import find_contours

    mask = np.pad(region.mask, 1)
    contours = find_contours(mask.astype(np.uint8), 0.5, fully_connected="high")
    rings = sorted((contour[:-1, ::-1] for contour in contours), key=lambda ring: ring[:, 0].min())
    line = rings[0] if len(rings) == 1 else _join_rings(rings, mask)
    outline: np.ndarray = _drop_midpoints(line) + np.array([region.x0 - 0.5, region.y0 - 0.5])
    return outline


def _join_rings(rings: list[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Join the rings to one line: along the first, outer one, with a detour around a hole where its bridge begins.

    A bridge leads from the leftmost point of a hole along its row of `mask` (H, W) to the next pixel outside the region
    on the left. That is a point of another ring, which reaches farther to the left, so all rings are joined in the end.
    """
    outside = np.maximum.accumulate(np.where(mask, -1, np.arange(mask.shape[1])), axis=1)
    place_of = {tuple(point): (ring, i) for ring, points in enumerate(rings) for i, point in enumerate(points.tolist())}
    detours: dict[tuple[int, int], tuple[int, int]] = {}
    for hole, points in enumerate(rings[1:], start=1):
        first = int(points[:, 0].argmin())
        x, y = points[first].tolist()
        detours[place_of[outside[int(y), int(x)] + 0.5, y]] = (hole, first)

    places: list[tuple[int, int]] = []
    under_way = [(0, iter(range(len(rings[0]))))]
    while under_way:
        ring, ahead = under_way[-1]
        if (i := next(ahead, None)) is None:
            under_way.pop()
            continue
        places.append((ring, i))
        if detour := detours.pop((ring, i), None):
            hole, first = detour
            count = len(rings[hole])
            # Around the hole to its first point again, then back to where the bridge began.
            around = [(first + step) % count for step in range(count + 1)]
            under_way[-1] = (ring, chain([i], ahead))
            under_way.append((hole, iter(around)))
    return np.array([rings[ring][i] for ring, i in places])


def _drop_midpoints(ring: np.ndarray) -> np.ndarray:
    """Leave out points at which the line goes straight on in equal steps."""
    steps = np.roll(ring, -1, axis=0) - ring
    corners: np.ndarray = ring[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]
    return corners
