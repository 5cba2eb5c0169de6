"""Run lengths of masks from the places where they change."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask


def encode_run_lengths(places: np.ndarray, size: tuple[int, int]) -> str:
    """Encode a mask of `size` (H, W) as COCO's run lengths, from the ascending places x H + y where it changes."""
    height, width = size
    lengths = np.diff(places, prepend=0, append=height * width)
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": lengths.tolist()}, height, width)
    return str(encoded["counts"], "ascii")
