"""Class maps from the clusters and masks of objects (step 8)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fastcomus.store.objects_table import decode_mask

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend


@dataclass(frozen=True)
class ClassMap:
    """The class map (H, W) uint16 of an image, by its name: 0 background, c + 1 cluster c."""

    image: str
    labels: np.ndarray


def assemble_class_maps(
    parts: Iterable[pa.Table], labels: np.ndarray, skipped: pa.Table, backend: Backend
) -> Iterator[ClassMap]:
    """Make a class map of every readable image: object pixels get cluster + 1, all others 0.

    Objects that the filter left out are drawn as well: the filter only decides which images train
    (`select_training_images`). Those with a negative label, which are no objects, are left out. Where masks overlap,
    the object of higher score wins. `parts`: the objects, those of one image together and in one part; `labels`: (N,),
    their clusters; `skipped`: images without an object.

    Yields:
        The maps of images with objects in their order, then those of images without.
    """
    first = 0
    for part in parts:
        yield from _assemble_part(part, labels[first : first + len(part)], backend)
        first += len(part)
    for image, width, height in zip(*(skipped[name] for name in ("image", "width", "height")), strict=True):
        if width.as_py():
            yield ClassMap(image.as_py(), np.zeros((height.as_py(), width.as_py()), np.uint16))


def _assemble_part(part: pa.Table, labels: np.ndarray, backend: Backend) -> Iterator[ClassMap]:
    """Draw the maps of one part, as many at once as suits the backend."""
    from fastcomus.backends.interface import LabelledMasks

    table = part.select(["image", "width", "height", "score", "mask"]).to_pydict()
    images = table["image"]
    starts = [i for i in range(len(images)) if i == 0 or images[i] != images[i - 1]]
    names: list[str] = []
    waiting: list[LabelledMasks] = []
    for start, end in pairwise([*starts, len(images)]):
        kept = (i for i in range(start, end) if labels[i] >= 0)
        rows = sorted(kept, key=lambda i: (table["score"][i], i))
        shape = (table["height"][start], table["width"][start])
        masks = [decode_mask(table["mask"][i], *shape) for i in rows]
        names.append(images[start])
        waiting.append(LabelledMasks(masks, [int(labels[i]) for i in rows], shape))
        pixels = sum(mask.size for image in waiting for mask in image.masks)
        if end == len(images) or len(waiting) == backend.images_at_once or pixels >= backend.pixels_at_once:
            yield from map(ClassMap, names, backend.assemble_masks(waiting))
            names, waiting = [], []


def select_training_images(images: Sequence[str], is_core: np.ndarray) -> list[str]:
    """Select the images, sorted, all of whose objects passed the filter; the paper trains on these alone."""
    dropped = {image for image, kept in zip(images, is_core, strict=True) if not kept}
    return sorted(set(images) - dropped)
