"""Labels and object masks to class maps (step 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from fastcomus.backends import Backend, LabelledMasks
from fastcomus.objects import decode_mask


@dataclass(frozen=True)
class ClassMap:
    """The class map of one image: (H, W) uint16, 0 background, c + 1 cluster c."""

    image: str
    labels: np.ndarray


def class_maps(objects: pa.Table, labels: np.ndarray, skipped: pa.Table, backend: Backend) -> Iterator[ClassMap]:
    """One class map per readable image: object pixels get cluster + 1, everything else 0.

    `objects`: rows of one image stand together; where masks overlap, the object of higher score wins. `labels`: (N,)
    cluster of each object. Images of `skipped` that could be read get an empty map. The filter plays no part here: it
    decides which images train (`training_images`).
    """
    table = objects.select(["image", "width", "height", "score", "mask"]).to_pydict()
    images = table["image"]
    starts = [i for i in range(len(images)) if i == 0 or images[i] != images[i - 1]]
    waiting: list[LabelledMasks] = []
    pixels = 0
    for place, (start, end) in enumerate(pairwise([*starts, len(images)])):
        rows = sorted(range(start, end), key=lambda i: (table["score"][i], i))
        shape = (table["height"][start], table["width"][start])
        masks = [decode_mask(table["mask"][i], *shape) for i in rows]
        waiting.append(LabelledMasks(masks, [int(labels[i]) for i in rows], shape))
        pixels += len(masks) * shape[0] * shape[1]
        is_last = place + 1 == len(starts)
        if is_last or len(waiting) == backend.images_at_once or pixels >= backend.pixels_at_once:
            names = [images[i] for i in starts[place + 1 - len(waiting) : place + 1]]
            yield from map(ClassMap, names, backend.assemble_masks(waiting))
            waiting, pixels = [], 0
    for row in skipped.to_pylist():
        if row["width"]:
            yield ClassMap(row["image"], np.zeros((row["height"], row["width"]), np.uint16))


def training_images(images: Sequence[str], is_core: np.ndarray) -> list[str]:
    """Names, sorted, of the images all of whose objects passed the filter; the paper trains on these alone.

    `images`, `is_core`: (N,), of each object.
    """
    dropped = {image for image, kept in zip(images, is_core, strict=True) if not kept}
    return sorted(set(images) - dropped)
