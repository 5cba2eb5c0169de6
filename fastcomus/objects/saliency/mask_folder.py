"""Existing object masks, read from a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastcomus.errors import InputError
from fastcomus.images.found import UnreadableImage
from fastcomus.images.stamps import list_mask_candidates


@dataclass(frozen=True)
class MaskFolder:
    """A `Proposer` that reads the mask of sub/a.jpg from sub/a.jpg.png or sub/a.png; values above 0 are object.

    Attributes:
        folder: The folder of PNG masks.

    Raises:
        InputError: If the folder is missing or holds no PNG.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise InputError(f"--masks must be a folder of PNG masks; {self.folder} is not a folder.")
        if next(self.folder.rglob("*.[pP][nN][gG]"), None) is None:
            raise InputError(f"--masks {self.folder} holds no PNG; masks are named like their image (a.jpg: a.png).")

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Read the mask of an image.

        Args:
            name: The image's name in its folder.
            pixels: (H, W, 3) uint8, of which the size is used.

        Returns:
            (1, H, W) bool; (0, H, W) for an image without a mask.

        Raises:
            UnreadableImage: If the mask is broken or differs in size from the image.
        """
        shape = pixels.shape[:2]
        # `Path.is_file` raises where a name is too long for a file; `os.path.isfile` says no.
        file = next((f for f in list_mask_candidates(self.folder, name) if os.path.isfile(f)), None)  # noqa: PTH113
        if file is None:
            return np.zeros((0, *shape), bool)
        try:
            with Image.open(file) as picture:
                values = np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage("unreadable mask", f"{file.name}: {error}") from error
        mask = values > 0 if values.ndim == 2 else np.any(values[..., :3], axis=2)
        if mask.shape != shape:
            raise UnreadableImage(
                "mask of another size",
                f"{file.name} is {mask.shape[1]} x {mask.shape[0]}, its image {shape[1]} x {shape[0]}",
            )
        return mask[None]
