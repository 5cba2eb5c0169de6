"""What the priors do with an image before and after: checks, working size, CIELAB colours, stretched maps."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fastcomus.errors import InputError

# From 8-bit sRGB to linear RGB, and from that to XYZ.
_CODES = np.arange(256) / 255.0
LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)
XYZ_OF_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
# With rows that sum to 1 white becomes (1, 1, 1): the matrix includes the division by the white point D65.
XYZ_OF_RGB = (XYZ_OF_RGB / XYZ_OF_RGB.sum(axis=1, keepdims=True)).astype(np.float32)


def check_fields(prior: object, above_zero: tuple[str, ...], not_negative: tuple[str, ...]) -> None:
    """Check a prior's fields by name: those that must be above 0 and those that must be 0 or more, else InputError."""
    for field in above_zero:
        value = getattr(prior, field)
        if not value > 0:
            raise InputError(f"{field} must be above 0; got {value}. Give a positive number.")
    for field in not_negative:
        value = getattr(prior, field)
        if not value >= 0:
            raise InputError(f"{field} must not be negative; got {value}. Give 0 or more.")


def check_pixels(pixels: np.ndarray) -> None:
    """Raise InputError unless `pixels` is a non-empty (H, W, 3) uint8 image."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise InputError(
            "pixels must be a non-empty (H, W, 3) uint8 array; "
            f"got {pixels.shape} {pixels.dtype}. Convert the image to 8-bit RGB."
        )


def shrink_image(pixels: np.ndarray, longest_side_px: int) -> np.ndarray:
    """Shrink an image (H, W, 3) uint8 bilinearly, if its longest side exceeds `longest_side_px`."""
    height, width = pixels.shape[:2]
    scale = longest_side_px / max(height, width)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def convert_to_cielab(rgb: np.ndarray) -> np.ndarray:
    """Convert (H, W, 3) uint8 sRGB to (H, W, 3) float32 CIELAB with white D65."""
    xyz = LINEAR[rgb] @ XYZ_OF_RGB.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), np.float32(7.787) * xyz + np.float32(16.0 / 116.0))
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def stretch_to_unit(values: np.ndarray) -> np.ndarray:
    """Map values linearly to [0, 1]; values that are all equal up to rounding become zeros."""
    low, high = values.min(), values.max()
    if high - low < 1e-4:
        return np.zeros_like(values)
    stretched: np.ndarray = (values - low) / (high - low)
    return stretched


def enlarge_saliency_map(saliency_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarge a map (h, w) float32 in [0, 1] bilinearly to (1, H, W); `shape`: H and W."""
    if saliency_map.shape != shape:
        large = Image.fromarray(saliency_map).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
        saliency_map = np.clip(np.asarray(large), 0.0, 1.0)
    return saliency_map[None]
