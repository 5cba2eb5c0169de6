"""Pixels of every mode and orientation as upright RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin


def _to_rgb(image: ImageFile.ImageFile) -> np.ndarray:
    """(H, W, 3) uint8 of a loaded image of any mode."""
    if image.mode[0] == "I" or image.mode == "F":
        grey = _scale_wide_grey(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "LAB":
        to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return np.array(ImageCms.applyTransform(image, to_srgb))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _scale_wide_grey(image: ImageFile.ImageFile) -> np.ndarray:
    """(H, W) uint8 of a grey image with more than 8 bits a pixel, scaled as `read_image` says."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        return _stretch(values.astype(np.float64), keep_unit_range=image.mode == "F")
    values = values.astype(np.uint16)
    bits = 16
    is_inverted = False
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode != "I":
        bits = 12 if image.tag_v2.get(258) == (12,) else 16
        is_inverted = image.tag_v2.get(262) == 0  # "white is zero", which Pillow leaves to us at this depth
    grey = (values >> (bits - 8)).astype(np.uint8)
    if is_inverted:
        grey = 255 - grey
    key = image.info.get("transparency")  # a PNG's colour key
    return np.where(values == key, np.uint8(255), grey) if isinstance(key, int) else grey


def _stretch(values: np.ndarray, keep_unit_range: bool) -> np.ndarray:
    """(H, W) uint8 of float64 values: scaled from [0, 1] where wanted and true, else from [min, max]."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if keep_unit_range and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scaled = np.clip((values - low) * 255 / ((high - low) or 1.0), 0, 255)
    return np.rint(np.nan_to_num(scaled, nan=0.0)).astype(np.uint8)


def read_exif_orientation(image: ImageFile.ImageFile) -> int:
    """Return the orientation, 1 to 8 as in EXIF tag 274; 1 if there is none or the EXIF data are broken."""
    try:
        orientation = image.getexif().get(274, 1)
    except Exception:  # a picture is worth more than its broken metadata
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _orient_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
