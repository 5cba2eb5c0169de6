"""Labels and object masks to class maps (step 8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from fastcomus.backends.interface import Backend, LabelledMasks
from fastcomus.store.objects_table import decode_mask


@dataclass(frozen=True)
class ClassMap:
    """The class map of one image: (H, W) uint16, 0 background, c + 1 cluster c."""

    image: str
    labels: np.ndarray


def assemble_class_maps(
    parts: Iterable[pa.Table], labels: np.ndarray, skipped: pa.Table, backend: Backend
) -> Iterator[ClassMap]:
    """One class map per readable image: object pixels get cluster + 1, everything else 0.

    `parts`: the objects, those of one image together and in one part; where masks overlap, the object of higher score
    wins. `labels`: (N,) cluster of each object. Images of `skipped` that could be read get an empty map. The filter
    plays no part here: it decides which images train (`select_training_images`).
    """
    first = 0
    for part in parts:
        yield from _assemble_part(part, labels[first : first + len(part)], backend)
        first += len(part)
    for image, width, height in zip(*(skipped[name] for name in ("image", "width", "height")), strict=True):
        if width.as_py():
            yield ClassMap(image.as_py(), np.zeros((height.as_py(), width.as_py()), np.uint16))


def _assemble_part(part: pa.Table, labels: np.ndarray, backend: Backend) -> Iterator[ClassMap]:
    """Those of the images of a part, as many at once as the backend likes."""
    table = part.select(["image", "width", "height", "score", "mask"]).to_pydict()
    images = table["image"]
    starts = [i for i in range(len(images)) if i == 0 or images[i] != images[i - 1]]
    names: list[str] = []
    waiting: list[LabelledMasks] = []
    for start, end in pairwise([*starts, len(images)]):
        rows = sorted(range(start, end), key=lambda i: (table["score"][i], i))
        shape = (table["height"][start], table["width"][start])
        masks = [decode_mask(table["mask"][i], *shape) for i in rows]
        names.append(images[start])
        waiting.append(LabelledMasks(masks, [int(labels[i]) for i in rows], shape))
        pixels = sum(mask.size for image in waiting for mask in image.masks)
        if end == len(images) or len(waiting) == backend.images_at_once or pixels >= backend.pixels_at_once:
            yield from map(ClassMap, names, backend.assemble_masks(waiting))
            names, waiting = [], []


def select_training_images(images: Sequence[str], is_core: np.ndarray) -> list[str]:
    """Names, sorted, of the images all of whose objects passed the filter; the paper trains on these alone.

    `images`, `is_core`: (N,), of each object.
    """
    dropped = {image for image, kept in zip(images, is_core, strict=True) if not kept}
    return sorted(set(images) - dropped)
