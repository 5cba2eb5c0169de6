"""Minimum barrier saliency (MB+): a map from the pixels of one image, without weights, training or superpixels.

J. Zhang, S. Sclaroff, Z. Lin, X. Shen, B. Price, R. Mech, "Minimum Barrier Salient Object Detection at 80 FPS",
ICCV 2015.
The barrier of a path is the difference between the highest and the lowest value on it. A pixel is salient if every
path from the image's border to it has a high barrier; unlike a sum of steps, the barrier does not grow with noise along
the path. Added to that is the distance of a pixel's colour from the colours along the border (backgroundness). A
morphological clean-up then makes objects uniform without moving their edges.

Left open by the paper, or different here:
- colours are CIELAB, and the distances of the three channels are added.
- 1 squared CIELAB unit is added to each variance of border colours, so that a border of one colour (a white page) can
  be whitened.
- the width of the clean-up's kernel is a fraction of the longest side (in the paper pixels, at 300 px).
- there is no centre prior, which costs more than it gains on photographs with objects anywhere; `centre_weight=1.0`
  multiplies with one.
- the map is stretched to [0, 1] at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import grey_dilation, grey_erosion

from fastcomus.backends.compiled import compile_function
from fastcomus.objects.saliency.prior_images import (
    check_fields,
    check_pixels,
    convert_to_cielab,
    enlarge_saliency_map,
    shrink_image,
    stretch_to_unit,
)


@dataclass(frozen=True)
class MinimumBarrier:
    """A `Proposer` of one map per image, which depends on the image alone; thread-safe and deterministic."""

    passes: int = 3  # K, number of raster scans, alternately forwards and backwards
    border_width: float = 0.1  # of the strips whose colours are background, fraction of height and width
    backgroundness: bool = True  # MB+; without it MB
    smoothing: float = 50 / 300  # alpha, for the kernel's width, fraction of the longest side
    centre_weight: float = 0.0  # 0: no centre prior; 1: saliency falls linearly to 0 at the corners
    contrast: float = 10.0  # b, slope of the sigmoid at half the largest value
    working_side_px: int = 300  # larger images are worked on at this longest side

    def __post_init__(self) -> None:
        above_zero = ("passes", "border_width", "contrast", "working_side_px")
        check_fields(self, above_zero, not_negative=("smoothing", "centre_weight"))

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Compute the saliency map (1, H, W) of an image; see `proposer.Proposer`."""
        check_pixels(pixels)
        lab = convert_to_cielab(shrink_image(pixels, self.working_side_px))
        saliency = _to_one(
            sum(_compute_barrier_distance(np.ascontiguousarray(lab[..., c]), self.passes) for c in range(3))
        )
        if self.backgroundness:
            saliency = _to_one(saliency + _to_one(_compute_border_colour_distance(lab, self.border_width)))
        width_px = round(self.smoothing * max(saliency.shape) * float(np.sqrt(saliency.mean())))
        saliency = _to_one(
            _remove_narrow_spots(saliency, width_px) * _compute_centredness(saliency.shape) ** self.centre_weight
        )
        if saliency.any():
            saliency = 1 / (1 + np.exp(-self.contrast * (saliency - 0.5)))
        return enlarge_saliency_map(stretch_to_unit(saliency), pixels.shape[:2])


@compile_function
def _compute_barrier_distance(values, passes):  # type: ignore[no-untyped-def]
    """The paper's FastMBD, (H, W) float32 in and out: the lowest barrier found of 4-connected paths from the border."""
    height, width = values.shape
    distance = np.full((height, width), np.inf, np.float32)
    for y in range(height):
        distance[y, 0] = distance[y, width - 1] = 0
    for x in range(width):
        distance[0, x] = distance[height - 1, x] = 0
    highest, lowest = values.copy(), values.copy()
    for number in range(passes):
        step = 1 if number % 2 == 0 else -1
        for row in range(1, height - 1):
            y = row if step == 1 else height - 1 - row
            for column in range(1, width - 1):
                x = column if step == 1 else width - 1 - column
                value = values[y, x]
                for behind_y, behind_x in ((y - step, x), (y, x - step)):
                    high = max(highest[behind_y, behind_x], value)
                    low = min(lowest[behind_y, behind_x], value)
                    if high - low < distance[y, x]:
                        distance[y, x] = high - low
                        highest[y, x] = high
                        lowest[y, x] = low
    return distance


def _to_one(values: np.ndarray) -> np.ndarray:
    """Values (H, W) float32, not negative, divided by the largest; zeros if all are 0 up to rounding."""
    greatest = values.max()
    return values / greatest if greatest > 1e-3 else np.zeros_like(values)


def _compute_border_colour_distance(lab: np.ndarray, border_width: float) -> np.ndarray:
    """The paper's U, (H, W) float32: Mahalanobis distances to the border strips' colours, added but the largest."""
    height, width = lab.shape[:2]
    rows = min(height, max(1, round(border_width * height)))
    columns = min(width, max(1, round(border_width * width)))
    total, greatest = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for strip in (lab[:rows], lab[-rows:], lab[:, :columns], lab[:, -columns:]):
        colours = strip.reshape(-1, 3).astype(np.float64)
        mean = colours.mean(axis=0)
        covariance = (colours - mean).T @ (colours - mean) / len(colours) + np.eye(3)
        # If W W^T is the inverse covariance, |(x - mean) W| is the Mahalanobis distance.
        whitening = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
        distance = _to_one(np.linalg.norm((lab - mean.astype(np.float32)) @ whitening, axis=-1))
        total += distance
        np.maximum(greatest, distance, out=greatest)
    difference: np.ndarray = total - greatest
    return difference


def _compute_centredness(shape: tuple[int, int]) -> np.ndarray:
    """Weights (H, W) float32: 1 at the centre, 0 at the corners, linear in the distance."""
    y, x = (np.arange(side, dtype=np.float32) - (side - 1) / 2 for side in shape)
    return 1 - _to_one(np.hypot(y[:, None], x))


def _remove_narrow_spots(saliency: np.ndarray, width_px: int) -> np.ndarray:
    """Remove bright, then dark spots narrower than `width_px`; larger regions keep their edges. (H, W) float32."""
    if width_px < 2:
        return saliency
    opened = _reconstruct(grey_erosion(saliency, size=(width_px, width_px), mode="nearest"), saliency)
    closed: np.ndarray = -_reconstruct(-grey_dilation(opened, size=(width_px, width_px), mode="nearest"), -opened)
    return closed


@compile_function
def _reconstruct(marker, ceiling):  # type: ignore[no-untyped-def]
    """Morphological reconstruction by dilation, 4-connected, (H, W) float32: scikit-image's in a tenth of the time."""
    height, width = ceiling.shape
    flooded = np.minimum(marker, ceiling)
    step, changes = 1, 2
    while changes:  # two scans in a row that change nothing
        changes -= 1
        for row in range(height):
            y = row if step == 1 else height - 1 - row
            for column in range(width):
                x = column if step == 1 else width - 1 - column
                level = flooded[y, x]
                if row > 0:
                    level = max(level, flooded[y - step, x])
                if column > 0:
                    level = max(level, flooded[y, x - step])
                level = min(level, ceiling[y, x])
                if level > flooded[y, x]:
                    flooded[y, x] = level
                    changes = 2
        step = -step
    return flooded
