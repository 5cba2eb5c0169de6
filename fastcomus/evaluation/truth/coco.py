"""Truth from COCO's instances: `annotations/instances_val2017.json`, merged by category.

Where masks overlap, the smaller lies on top, because small objects mostly stand before large ones. A crowd (`iscrowd`:
one region, roughly drawn, for many objects) counts as pixels of its category, below all single objects.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fastcomus.errors import InputError, get_first_line
from fastcomus.evaluation.truth import voc
from fastcomus.evaluation.truth.coco_masks import Annotation, check_segmentation, draw_masks
from fastcomus.evaluation.truth.matching_names import match_images
from fastcomus.evaluation.truth.source import TruthSource, read_list
from fastcomus.evaluation.truth.truth import (
    MAX_CLASSES,
    Truth,
    build_absence_error,
    build_no_image_error,
    choose_class_names,
)
from fastcomus.images.coco_entries import read_id, read_name, read_path

log = logging.getLogger("fastcomus")

# COCO's names of the 20 classes of VOC, where they differ.
_NAME_IN_VOC = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def read(source: TruthSource, given: tuple[str, ...], image_names: Sequence[str]) -> Truth:
    """Read the annotations of a split; masks are drawn when an image is read.

    Images are matched by `match_images`; a Windows path counts as one with slashes. Ids may be numbers or texts. Labels
    are 1 .. C in the order of the category ids; categories of one name are one class. With `coco-voc` they are those of
    VOC (`voc.CLASSES`), and all other categories are background. An image without annotations is background everywhere.

    Args:
        source: The data set and its split; with a list file, only the images that it names count.
        given: Names of the classes; () for the data set's own.
        image_names: Images of the run.

    Returns:
        The truth of all images of the split.

    Raises:
        InputError: The file is missing, is no COCO JSON, has no masks, two images of one id, or an annotation that
            cannot be drawn or belongs to no image (the message names it), or the list names images that are not in it
            (the message names all of them).
    """
    file = _find_annotation_file(source.path, source.split)
    if not file.is_file():
        raise InputError(_explain_no_annotations(source.path, source.split))
    content = _read_annotations(file)
    classes, label_of = _label_categories(content["categories"], source.kind == "coco-voc", file)
    classes = choose_class_names(given, classes, str(file))
    listed = _read_images(content, file)
    found, by_name = match_images(list(listed), image_names, file)
    if source.list_file is not None:
        entries = [read_path(name) for name in read_list(source.list_file)]
        chosen, _ = match_images(list(listed), entries, file)
        names = {entry: name for name, entry in chosen.items()}
        if absent := [entry for entry in entries if entry not in names]:
            raise build_absence_error(absent, f"The list {source.list_file}", f"an entry in {file}")
        listed = {names[entry]: listed[names[entry]] for entry in entries}
        found = {name: found[name] for name in listed if name in found}
    if not found:
        raise build_no_image_error(file, next(iter(listed), "no image"), image_names)
    if by_name := [name for name in by_name if name in found]:
        first = by_name[0]
        log.info("truth: %d images go by file name, folders differ: %s is %s", len(by_name), found[first], first)
    _check_masks([listed[name] for name in found], file)
    images = {found.get(name, name): image for name, image in listed.items()}
    checked = {name: _check_annotations(images[name], label_of, file) for name in found.values()}

    def draw(name: str) -> np.ndarray:
        annotations = checked[name] if name in checked else _check_annotations(images[name], label_of, file)
        return draw_masks(annotations, images[name].shape)

    return Truth(source.path, classes, dict.fromkeys(images, file), draw)


def has_split(path: Path, split: str) -> bool:
    """Tell whether the data set in a folder has a split of that name."""
    return _find_annotation_file(path, split).is_file()


def _find_annotation_file(path: Path, split: str) -> Path:
    return path / "annotations" / f"instances_{PurePosixPath(split).name}.json"


def _read_annotations(file: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: {get_first_line(error)}.") from error
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise InputError(f"{file} is no COCO JSON of instances: it has no list {part!r}; give instances_*.json.")
    return dict(content)


def _label_categories(categories: Sequence[Any], as_voc: bool, file: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, background first, and the label of every category id, 0 for background."""
    names = {number: str(one["name"]) for number, one in _read_by_id(categories, "category", ("name",), file).items()}
    names = {number: names[number] for number in sorted(names, key=_rank_id)}
    if as_voc:
        names = {category: _NAME_IN_VOC.get(name, name) for category, name in names.items()}
        if lacking := sorted(set(voc.CLASSES[1:]) - set(names.values())):
            raise InputError(
                f"{file} lacks these classes of VOC: {', '.join(lacking)}; use coco: instead of coco-voc:."
            )
        classes: tuple[str, ...] = voc.CLASSES
    else:
        classes = tuple(dict.fromkeys(("background", *names.values())))  # categories of one name are one class
    if len(classes) > MAX_CLASSES:
        raise InputError(f"{file} has {len(classes) - 1} categories where at most {MAX_CLASSES - 1} can be told apart.")
    return classes, {number: classes.index(name) if name in classes else 0 for number, name in names.items()}


@dataclass(frozen=True)
class _Image:
    """An entry of `images`: its path, height and width, and the annotations as in the file."""

    name: str
    shape: tuple[int, int]
    annotations: list[dict[str, Any]]


def _read_images(content: dict[str, Any], file: Path) -> dict[str, _Image]:
    """Images by path, each with its annotations."""
    by_id: dict[str, _Image] = {}
    for number, one in _read_by_id(content["images"], "image", ("file_name", "height", "width"), file).items():
        name = read_name(one["file_name"])
        height, width = one["height"], one["width"]
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise InputError(
                f"Image {number} ({name}) of {file} is {width} x {height} px; give whole numbers from 1 on."
            )
        by_id[number] = _Image(name, (height, width), [])
    ids = {one.name: number for number, one in by_id.items()}
    for number, image in by_id.items():
        if (last := ids[image.name]) != number:
            raise InputError(f"Images {number} and {last} of {file} are both {image.name}; give each its own name.")
    unknown: list[dict[str, Any]] = []
    for one in _check_entries(content["annotations"], "annotation", ("image_id", "category_id"), file):
        owner = by_id.get(read_id(one["image_id"], "image_id", file))
        (unknown if owner is None else owner.annotations).append(one)
    if unknown:
        raise InputError(
            f"{len(unknown)} of the {len(content['annotations'])} annotations in {file} belong to images that it does "
            f"not list: annotation {unknown[0].get('id')}, the first, to image {unknown[0]['image_id']}; add the "
            "images, or take these annotations out."
        )
    return {one.name: one for one in by_id.values()}


def _check_annotations(image: _Image, label_of: dict[str, int], file: Path) -> list[Annotation]:
    checked = []
    for one in image.annotations:
        label = label_of.get(read_id(one["category_id"], "category_id", file))
        try:
            if label is None:
                raise ValueError(f"has the category {one['category_id']}, which the file does not list")
            segmentation = check_segmentation(one.get("segmentation"), image.shape)
        except ValueError as error:
            raise InputError(
                f"Annotation {one.get('id')} of {image.name} in {file} {error}; mend it or take it out."
            ) from error
        if label:  # background is not drawn, so that it never hides a class below
            checked.append(Annotation(label, bool(one.get("iscrowd")), segmentation))
    return checked


def _check_masks(images: Sequence[_Image], file: Path) -> None:
    annotations = [(image, one) for image in images for one in image.annotations]
    if bare := [(image, one) for image, one in annotations if not one.get("segmentation")]:
        image, first = bare[0]
        raise InputError(
            f"{len(bare)} of the {len(annotations)} annotations of these images in {file} have no segmentation: "
            f"annotation {first.get('id')} of {image.name}, the first; give the JSON of instances with masks, or take "
            "these annotations out."
        )


def _read_by_id(entries: Sequence[Any], what: str, needed: tuple[str, ...], file: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in _check_entries(entries, what, ("id", *needed), file):
        number = read_id(one["id"], f"{what} id", file)
        if number in found:
            both = f"{found[number][needed[0]]} and {one[needed[0]]}"
            raise InputError(f"{file} has the {what} id {number} twice, for {both}; give each its own.")
        found[number] = one
    return found


def _check_entries(entries: Sequence[Any], what: str, needed: tuple[str, ...], file: Path) -> Iterator[dict[str, Any]]:
    for place, one in enumerate(entries):
        if not isinstance(one, dict) or (lacking := [key for key in needed if key not in one]):
            known = f" (id {one['id']})" if isinstance(one, dict) and "id" in one else ""
            told = ", ".join(lacking) if isinstance(one, dict) else "its parts"
            raise InputError(f"{file} is no COCO JSON of instances: {what} {place}{known} lacks {told}.")
        yield one


def _rank_id(number: str) -> tuple[bool, int, str]:
    """Sort whole numbers by size and before texts."""
    is_whole = number.removeprefix("-").isdecimal()
    return (not is_whole, int(number) if is_whole else 0, number)


def _explain_no_annotations(path: Path, split: str) -> str:
    there = sorted(file.stem.removeprefix("instances_") for file in (path / "annotations").glob("instances_*.json"))
    if not there:
        return f"{path} holds no COCO (no annotations/instances_*.json); give the folder that holds annotations/."
    return f"COCO in {path} has no split {split!r}; it has {', '.join(there)}."
