"""Truth from COCO's instances: `annotations/instances_val2017.json`, merged by category.

Where masks overlap, the smaller lies on top, because small objects mostly stand before large ones. A crowd (`iscrowd`:
one region, roughly drawn, for many objects) counts as pixels of its category, below all single objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from fastcomus.errors import InputError, get_first_line
from fastcomus.evaluation.truth import voc
from fastcomus.evaluation.truth.source import TruthSource, read_list
from fastcomus.evaluation.truth.truth import (
    MAX_CLASSES,
    Truth,
    build_absence_error,
    build_no_image_error,
    choose_class_names,
    match_by_stem,
)

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

    Labels are 1 .. C in the order of the category ids. With `coco-voc` they are those of VOC (`voc.CLASSES`), and all
    other categories are background. An image without annotations is background everywhere.

    Args:
        source: The data set and its split; with a list file, only the images that it names count.
        given: Names of the classes; () for the data set's own.
        image_names: Images of the run.

    Returns:
        The truth of all images of the split.

    Raises:
        InputError: The file is missing, is no COCO JSON, has no masks, or the list names images that are not in it
            (the message names all of them).
    """
    file = _find_annotation_file(source.path, source.split)
    if not file.is_file():
        raise InputError(_explain_no_annotations(source.path, source.split))
    content = _read_annotations(file)
    classes, label_of = _label_categories(content["categories"], source.kind == "coco-voc", file)
    classes = choose_class_names(given, classes, str(file))
    shapes, annotations = _group_by_image(content, label_of, file)
    if source.list_file is not None:
        stems = {PurePosixPath(entry).stem: entry for entry in read_list(source.list_file)}
        if lacking := [entry for stem, entry in stems.items() if stem not in shapes]:
            raise build_absence_error(lacking, f"The list {source.list_file}", f"an entry in {file}")
        shapes = {stem: shapes[stem] for stem in stems}
    images = match_by_stem(image_names, shapes)
    if not images:
        raise build_no_image_error(file, f"{next(iter(shapes), 'no image')}.jpg", image_names)
    stem_of = {images.get(stem, f"{stem}.jpg"): stem for stem in shapes}

    def draw(image: str) -> np.ndarray:
        stem = stem_of[image]
        return _draw_masks(annotations.get(stem, []), shapes[stem], file)

    return Truth(source.path, classes, dict.fromkeys(stem_of, file), draw)


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


def _label_categories(
    categories: Sequence[Mapping[str, Any]], as_voc: bool, file: Path
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Class names, background first, and the label of every category id, 0 for background."""
    names = {int(one["id"]): str(one["name"]) for one in sorted(categories, key=lambda one: int(one["id"]))}
    if not as_voc:
        if len(names) >= MAX_CLASSES:
            raise InputError(f"{file} has {len(names)} categories where at most {MAX_CLASSES - 1} can be told apart.")
        return ("background", *names.values()), {category: label for label, category in enumerate(names, start=1)}
    in_voc = {category: _NAME_IN_VOC.get(name, name) for category, name in names.items()}
    if lacking := sorted(set(voc.CLASSES[1:]) - set(in_voc.values())):
        raise InputError(f"{file} lacks these classes of VOC: {', '.join(lacking)}; use coco: instead of coco-voc:.")
    return voc.CLASSES, {
        category: voc.CLASSES.index(name) if name in voc.CLASSES else 0 for category, name in in_voc.items()
    }


def _group_by_image(
    content: dict[str, Any], label_of: dict[int, int], file: Path
) -> tuple[dict[str, tuple[int, int]], dict[str, list[dict[str, Any]]]]:
    """Height and width, and annotations (`label`, `segmentation`, `crowd`), both by the stem of the file name."""
    try:
        stem_of = {one["id"]: PurePosixPath(one["file_name"]).stem for one in content["images"]}
        shapes = {stem_of[one["id"]]: (int(one["height"]), int(one["width"])) for one in content["images"]}
        bare = [one for one in content["annotations"] if not one.get("segmentation")]
        if bare:
            raise InputError(
                f"{file} has no masks: {len(bare)} of its {len(content['annotations'])} annotations lack a "
                f"segmentation (the first has id {bare[0].get('id')}); give the JSON of instances with masks."
            )
        annotations: dict[str, list[dict[str, Any]]] = {}
        for one in content["annotations"]:
            label = label_of[one["category_id"]]
            if label:  # background is not drawn, so that it never hides a class below
                kept = {"label": label, "segmentation": one["segmentation"], "crowd": bool(one.get("iscrowd"))}
                annotations.setdefault(stem_of[one["image_id"]], []).append(kept)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is no COCO JSON of instances: {type(error).__name__} {error}.") from error
    return shapes, annotations


def _draw_masks(annotations: Sequence[dict[str, Any]], shape: tuple[int, int], file: Path) -> np.ndarray:
    """Draw (H, W) uint8: crowds first, then single objects from large to small, the first of equals on top."""
    labels = np.zeros(shape, np.uint8)
    if not annotations:
        return labels
    try:
        encoded = [_pack_run_lengths(one["segmentation"], shape) for one in annotations]
        sizes = coco_mask.area(encoded)
        order = sorted(range(len(encoded)), key=lambda i: (not annotations[i]["crowd"], -int(sizes[i]), -i))
        for i in order:
            labels[coco_mask.decode(encoded[i]).astype(bool)] = annotations[i]["label"]
    except Exception as error:  # pycocotools raises errors of many kinds
        raise InputError(f"A segmentation in {file} cannot be drawn at {shape[1]} x {shape[0]} px: {error}.") from error
    return labels


def _pack_run_lengths(segmentation: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Turn polygons, or run lengths packed or not, into packed run lengths."""
    height, width = shape
    if isinstance(segmentation, list):
        return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its run lengths are for {segmentation['size'][1]} x {segmentation['size'][0]}")
    if isinstance(segmentation["counts"], list):
        return dict(coco_mask.frPyObjects(segmentation, height, width))
    return {"size": [height, width], "counts": segmentation["counts"]}


def _explain_no_annotations(path: Path, split: str) -> str:
    there = sorted(file.stem.removeprefix("instances_") for file in (path / "annotations").glob("instances_*.json"))
    if not there:
        return f"{path} holds no COCO (no annotations/instances_*.json); give the folder that holds annotations/."
    return f"COCO in {path} has no split {split!r}; it has {', '.join(there)}."
