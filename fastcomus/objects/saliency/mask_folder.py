"""Existing object masks, read from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fastcomus.errors import InputError, suggest_path
from fastcomus.images.found import UnreadableImage
from fastcomus.images.mask_files import MaskFiles

_MASK_COLOURS = 16  # most colours of the opaque part of a picture with alpha whose colours are a mask
_FEW_VALUES = 64  # most colours of a mask without any background


class MaskFolder:
    """A `Proposer` that reads the masks of images from PNG files; see `MaskFiles` for their names.

    Args:
        folder: The folder of PNG masks.

    Raises:
        InputError: If the folder is missing or holds no PNG.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.exists():
            near = suggest_path(folder) or "; give a folder of PNG masks."
            raise InputError(f"--masks {folder} does not exist{near}")
        if not folder.is_dir():
            raise InputError(f"--masks must be a folder of PNG masks; {folder} is not a folder.")
        self._files = MaskFiles(folder)
        if not self._files.names:
            raise InputError(f"--masks {folder} holds no PNG; masks are named like their image (a.jpg: a.png).")

    def check_names(self, images: Sequence[str]) -> None:
        """Raise InputError if none of the images has a mask."""
        if images and not any(self._files.find(name) for name in images):
            raise InputError(self._files.explain_no_match(images, "--masks"))

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Read the mask of an image.

        Args:
            name: The image's name in its folder.
            pixels: (H, W, 3) uint8, of which the size is used.

        Returns:
            (1, H, W) bool.

        Raises:
            UnreadableImage: If there is no mask, or it is broken, no mask at all, or of another size than the image.
        """
        shape = pixels.shape[:2]
        file = self._files.find(name)
        if file is None:
            raise UnreadableImage("no mask", f"neither {name}.png nor another name that a mask may have")
        mask = read_object_mask(file)
        if mask.shape != shape:
            raise UnreadableImage(
                "mask of another size",
                f"{file.name} is {mask.shape[1]} x {mask.shape[0]}, its image {shape[1]} x {shape[0]}",
            )
        return mask[None]


def read_object_mask(file: Path) -> np.ndarray:
    """Read where a PNG mask has its object: values above 0, in any channel; of a palette PNG, indices.

    Alpha is no mask where all pixels have the same, or where the opaque part has up to 16 colours, black among them.
    Otherwise the picture is a cut-out, whose object is what is at least half as opaque as its most opaque pixel.

    Args:
        file: The mask.

    Returns:
        (H, W) bool.

    Raises:
        UnreadableImage: If the file is broken, or the picture is no mask: a photograph, or black where it is opaque.
    """
    alpha = None
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            values = np.asarray(picture)
            if picture.has_transparency_data and picture.mode[0] != "I":
                alpha = np.asarray(picture.convert("RGBA"))[..., 3]
            bands = values.shape[2] - ("A" in picture.getbands()) if values.ndim == 3 else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage("unreadable mask", f"{file.name}: {error}") from error
    colours = _pack_colours(values[..., :bands] if values.ndim == 3 else values[..., None])
    is_object = colours > 0
    if alpha is not None and alpha.min() < alpha.max():
        is_opaque = alpha > alpha.max() // 2
        seen = np.unique(colours[is_opaque])
        if seen.tolist() == [0] and is_object.any():
            raise UnreadableImage("mask in doubt", f"{file.name} is black where it is opaque; save it without alpha")
        return is_object & is_opaque if seen[0] == 0 and 1 < len(seen) <= _MASK_COLOURS else is_opaque
    if is_object.all() and len(seen := np.unique(colours)) > _FEW_VALUES:
        raise UnreadableImage("not a mask", f"{file.name} has {len(seen)} colours and no pixel of 0 (background)")
    return is_object


def _pack_colours(values: np.ndarray) -> np.ndarray:
    """Turn (H, W, channels) into a whole number a pixel, 0 for black."""
    packed = values[..., 0].astype(np.int64)
    for channel in range(1, values.shape[2]):
        packed = packed << 8 | values[..., channel]
    return packed
