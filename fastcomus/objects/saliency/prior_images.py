"""What the priors do with an image before and after: checks, working size, CIELAB colours, stretched maps."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fastcomus.backends.compiled import compile_function
from fastcomus.errors import InputError

# From 8-bit sRGB to linear RGB, and from that to XYZ.
_CODES = np.arange(256) / 255.0
LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)
XYZ_OF_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
# With rows that sum to 1 white becomes (1, 1, 1): the matrix includes the division by the white point D65.
XYZ_OF_RGB = (XYZ_OF_RGB / XYZ_OF_RGB.sum(axis=1, keepdims=True)).astype(np.float32)
_STEPS = np.linspace(0.0, 1.0, 2**14 + 1)
_CUBE_ROOTS = np.where(_STEPS > 0.008856, np.cbrt(_STEPS), 7.787 * _STEPS + 16.0 / 116.0).astype(np.float32)


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
    return _convert(np.ascontiguousarray(rgb), LINEAR, XYZ_OF_RGB, _CUBE_ROOTS)


@compile_function
def _convert(rgb, linear, xyz_of_rgb, cube_roots):  # type: ignore[no-untyped-def]
    """See `convert_to_cielab`; `cube_roots`: CIELAB's f at even steps from 0 to 1, between which it is interpolated."""
    height, width = rgb.shape[:2]
    lab = np.empty((height, width, 3), np.float32)
    f = np.empty(3, np.float32)
    last = len(cube_roots) - 2
    for y in range(height):
        for x in range(width):
            r, g, b = linear[rgb[y, x, 0]], linear[rgb[y, x, 1]], linear[rgb[y, x, 2]]
            for i in range(3):
                place = (xyz_of_rgb[i, 0] * r + xyz_of_rgb[i, 1] * g + xyz_of_rgb[i, 2] * b) * np.float32(last + 1)
                below = min(int(place), last)
                low = cube_roots[below]
                f[i] = low + (cube_roots[below + 1] - low) * (place - np.float32(below))
            lab[y, x, 0] = np.float32(116) * f[1] - np.float32(16)
            lab[y, x, 1] = np.float32(500) * (f[0] - f[1])
            lab[y, x, 2] = np.float32(200) * (f[1] - f[2])
    return lab


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
