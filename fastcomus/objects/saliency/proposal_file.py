"""Object masks of other programs, such as Segment Anything's, read from a COCO JSON: several for each photograph."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fastcomus.errors import InputError, get_first_line
from fastcomus.evaluation.truth.coco_masks import check_segmentation, pack_run_lengths
from fastcomus.images.coco_entries import read_id, read_name
from fastcomus.images.found import UnreadableImage


class ProposalFile:
    """A `Proposer` that takes the masks, or else the boxes, of the annotations of each image; categories do not count.

    An image is found by its name in the folder, or by its file name alone where the JSON has that once.

    Args:
        file: COCO JSON with `images` (id, file_name, width, height) and `annotations` (image_id, and segmentation or
            bbox).

    Raises:
        InputError: The file cannot be read or is no such JSON.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        content = _read_json(file)
        by_id: dict[str, list[dict[str, Any]]] = {}
        for one in content["annotations"]:
            by_id.setdefault(read_id(one["image_id"], "image_id", file), []).append(one)
        self._images: dict[str, tuple[tuple[Any, Any], list[dict[str, Any]]]] = {}
        name_of: dict[str, str] = {}
        for one in content["images"]:
            name, number = _normalise_name(one["file_name"]), read_id(one["id"], "image id", file)
            if name in self._images:
                raise InputError(f"{file} lists the image {name} twice; give each image once.")
            if (other := name_of.setdefault(number, name)) != name:
                raise InputError(f"{file} has the image id {number} twice, for {other} and {name}; give each its own.")
            self._images[name] = (one["height"], one["width"]), by_id.pop(number, [])
        if by_id:
            raise InputError(
                f"{file} has annotations of images that it does not list, image_id {next(iter(by_id))} for instance."
            )
        stems: dict[str, list[str]] = {}
        for name in self._images:
            stems.setdefault(PurePosixPath(name).name, []).append(name)
        self._by_file_name = {stem: names[0] for stem, names in stems.items() if len(names) == 1}

    def check_names(self, images: Sequence[str]) -> None:
        """Raise InputError if none of the images is in the file, or if an entry may be of two of them."""
        taken: dict[str, str] = {}
        for name in images:
            if (entry := self._find(name)) is None:
                continue
            if entry in taken:
                raise InputError(
                    f"{entry} in {self._file} may be {taken[entry]} or {name}; give file names with their folders."
                )
            taken[entry] = name
        if images and not taken:
            first = next(iter(self._images), "no image")
            raise InputError(f"--masks {self._file} has no image of these: it has {first}, the folder {images[0]}.")

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Draw the proposals of an image.

        Args:
            name: The image's name in its folder.
            pixels: (H, W, 3) uint8, of which the size is used.

        Returns:
            (M, H, W) bool, from large to small.

        Raises:
            UnreadableImage: If there is none, or one cannot be drawn or is of another size than the image.
        """
        shape = (pixels.shape[0], pixels.shape[1])
        size, annotations = self._images.get(self._find(name) or "", (shape, []))
        if not annotations:
            raise UnreadableImage("no mask", f"{self._file.name} has no annotation of it")
        if size != shape:
            raise UnreadableImage(
                "mask of another size",
                f"{self._file.name} says {size[1]} x {size[0]}, its image is {shape[1]} x {shape[0]}",
            )
        packed = [self._pack(one, shape) for one in annotations]
        packed.sort(key=lambda one: -int(coco_mask.area(one)))
        masks = np.empty((len(packed), *shape), bool)
        for place, one in enumerate(packed):  # so that one at a time is there twice
            masks[place] = coco_mask.decode(one)
        return masks

    def _find(self, name: str) -> str | None:
        clean = _normalise_name(name)
        return clean if clean in self._images else self._by_file_name.get(PurePosixPath(clean).name)

    def _pack(self, annotation: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
        """Return the run lengths of an annotation."""
        try:
            if segmentation := annotation.get("segmentation"):
                return pack_run_lengths(check_segmentation(segmentation, shape), shape)
            return dict(coco_mask.encode(np.asfortranarray(fill_box(annotation.get("bbox"), shape), np.uint8)))
        except ValueError as error:
            raise UnreadableImage("unreadable mask", f"annotation {annotation.get('id')} {error}") from error


def fill_box(box: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W) of a box x, y, width, height in pixels. Raises ValueError if it covers no pixel."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(one) in (int, float) for one in box):
        raise ValueError("has neither segmentation nor bbox")
    if not np.isfinite(box).all():
        raise ValueError("has a bbox that is not finite")
    x, y, width, height = box
    mask = np.zeros(shape, bool)
    mask[max(0, round(y)) : max(0, round(y + height)), max(0, round(x)) : max(0, round(x + width))] = True
    if not mask.any():
        raise ValueError("has a bbox outside its image")
    return mask


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--masks {file} cannot be read as JSON: {get_first_line(error)}.") from error
    needed = {"images": {"id", "file_name", "width", "height"}, "annotations": {"image_id"}}
    for part, keys in needed.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(one, dict) and keys <= one.keys() for one in entries):
            raise InputError(
                f"--masks {file} is no COCO JSON of proposals: it needs a list {part!r} of objects with "
                f"{', '.join(sorted(keys))}."
            )
    return dict(content)


def _normalise_name(name: str) -> str:
    return unicodedata.normalize("NFC", read_name(name))
