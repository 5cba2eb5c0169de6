"""What the saliency priors without weights share: working size, CIELAB colours, superpixels and the graph on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.segmentation import slic

from fastcomus.errors import InputError


def check_fields(prior: object, above_zero: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    """Raise InputError for the first of the named fields that is out of its range."""
    for field in above_zero:
        value = getattr(prior, field)
        if not value > 0:
            raise InputError(f"{field} must be above 0; got {value}. Give a positive number.")
    for field in not_negative:
        value = getattr(prior, field)
        if not value >= 0:
            raise InputError(f"{field} must not be negative; got {value}. Give 0 or more.")


def check_pixels(pixels: np.ndarray) -> None:
    """Raise InputError for anything but a non-empty (H, W, 3) uint8 image."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise InputError(
            "pixels must be a non-empty (H, W, 3) uint8 array; "
            f"got {pixels.shape} {pixels.dtype}. Convert the image to 8-bit RGB."
        )


def shrink_image(pixels: np.ndarray, longest_side_px: int) -> np.ndarray:
    """(H, W, 3) uint8, made smaller, bilinearly, where its longest side is above `longest_side_px`."""
    height, width = pixels.shape[:2]
    scale = longest_side_px / max(height, width)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


_CODES = np.arange(256) / 255.0
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)
_XYZ_OF_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
# Rows sum to 1: white becomes (1, 1, 1), so the division by the white point is in the matrix.
_XYZ_OF_RGB = (_XYZ_OF_RGB / _XYZ_OF_RGB.sum(axis=1, keepdims=True)).astype(np.float32)


def convert_to_cielab(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> (H, W, 3) float32 CIELAB, white D65."""
    xyz = _LINEAR[rgb] @ _XYZ_OF_RGB.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), np.float32(7.787) * xyz + np.float32(16.0 / 116.0))
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def compute_superpixels(lab: np.ndarray, count: int, compactness: float) -> np.ndarray:
    """(H, W) int64, superpixels numbered from 0 without gaps."""
    # slic stretches what it gets to [0, 1] first, so CIELAB units have to be divided likewise.
    span = float(lab.max() - lab.min()) or 1.0
    labels = slic(
        lab,
        n_segments=min(count, lab.shape[0] * lab.shape[1]),
        compactness=compactness / span,
        max_num_iter=5,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    used = np.bincount(labels.ravel()) > 0
    return (np.cumsum(used) - 1)[labels]


@dataclass(frozen=True)
class Regions:
    """N superpixels and the graph on them."""

    colour_distance: np.ndarray  # (N, N) float64, d_app: Euclidean, between mean CIELAB colours
    position: np.ndarray  # (N, 2) float64, mean y and x as fractions of height and width
    touching: np.ndarray  # (N, N) bool, superpixels that share an edge of a pixel
    linked: np.ndarray  # (N, N) bool, touching, or both on the image's border
    on_border: np.ndarray  # (N,) bool


def compute_superpixel_saliency(
    pixels: np.ndarray,
    working_side_px: int,
    superpixels: int,
    compactness: float,
    smoothing: float,
    saliency_of: Callable[[Regions], np.ndarray],
) -> np.ndarray:
    """The saliency map (1, H, W) float32 in [0, 1] of `pixels` (H, W, 3) uint8, whose N superpixels have the saliency
    `saliency_of(regions)`, (N,): smoothed by a Gaussian of `smoothing` times the longest side, and stretched.
    """
    check_pixels(pixels)
    lab = convert_to_cielab(shrink_image(pixels, working_side_px))
    labels = compute_superpixels(lab, superpixels, compactness)
    saliency = saliency_of(measure_regions(lab, labels))[labels].astype(np.float32)
    smooth = gaussian_filter(saliency, smoothing * max(labels.shape), mode="nearest")
    return enlarge_saliency_map(stretch_to_unit(smooth), pixels.shape[:2])


def measure_regions(lab: np.ndarray, labels: np.ndarray) -> Regions:
    """From `lab` (H, W, 3) float32 CIELAB and `labels` (H, W), numbered without gaps."""
    height, width = labels.shape
    count = int(labels.max()) + 1
    flat = labels.ravel()
    size_px = np.bincount(flat, minlength=count)
    colour = np.stack([np.bincount(flat, lab[..., c].ravel(), count) / size_px for c in range(3)], axis=1)
    y = np.bincount(flat, np.repeat(np.arange(height) + 0.5, width), count) / (size_px * height)
    x = np.bincount(flat, np.tile(np.arange(width) + 0.5, height), count) / (size_px * width)
    touching = np.zeros((count, count), dtype=bool)
    touching[labels[:, :-1], labels[:, 1:]] = True
    touching[labels[:-1], labels[1:]] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    on_border = np.zeros(count, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        on_border[side] = True
    # All border superpixels are neighbours: an object must not cut one background in two.
    linked = touching | (on_border[:, None] & on_border)
    np.fill_diagonal(linked, False)
    return Regions(compute_pairwise_distance(colour), np.stack([y, x], axis=1), touching, linked, on_border)


def compute_pairwise_distance(points: np.ndarray) -> np.ndarray:
    """(N, C) -> (N, N) float64, Euclidean."""
    return np.sqrt(sum((axis[:, None] - axis) ** 2 for axis in points.T))


def find_within_two_steps(touching: np.ndarray) -> np.ndarray:
    """(N, N) bool: neighbours and their neighbours, without oneself; `touching`: (N, N) bool."""
    steps = touching.astype(np.float32)
    near = touching | (steps @ steps > 0)
    np.fill_diagonal(near, False)
    return near


def stretch_to_unit(values: np.ndarray) -> np.ndarray:
    """Affine to [0, 1]; zeros where the values are all the same but for rounding."""
    low, high = values.min(), values.max()
    if high - low < 1e-4:
        return np.zeros_like(values)
    return (values - low) / (high - low)


def enlarge_saliency_map(saliency_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 in [0, 1] -> (1, H, W) of `shape`, bilinearly."""
    if saliency_map.shape != shape:
        large = Image.fromarray(saliency_map).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        saliency_map = np.clip(np.asarray(large), 0.0, 1.0)
    return saliency_map[None]
