"""Some of the images of a folder, drawn by the seed."""

from __future__ import annotations

from dataclasses import replace

from fastcomus.images.found import ImageList
from fastcomus.store.sealed_json import compute_fingerprint


def draw_images(found: ImageList, most: int, seed: int) -> ImageList:
    """Return all images, or `most` of them that the seed and their names decide, whatever the others are."""
    if len(found.names) <= most:
        return found
    drawn = sorted(found.names, key=lambda name: compute_fingerprint(seed=seed, image=name))
    return replace(found, names=tuple(sorted(drawn[:most])))
