"""Truth from a folder of masks named like the images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.source import TruthSource, read_list
from fastcomus.evaluation.truth.truth import (
    Truth,
    build_absence_error,
    find_listed,
    group_by_stem,
    read_mask,
    strip_ending,
)


def read(source: TruthSource, classes: tuple[str, ...], image_names: Sequence[str]) -> Truth:
    """Find the mask of each image: a palette or grey PNG of labels, 0 background, 255 void.

    The mask of `sub/a.jpg` is `sub/a.jpg.png`, or else `sub/a.png`. Masks without an image are left out, and so are
    images without a mask unless the list names them.

    Args:
        source: The folder; with a list file, only the images that it names count.
        classes: Names of the classes, background first; () for none.
        image_names: Images of the run.

    Returns:
        The truth of the images that have a mask.

    Raises:
        InputError: No image has a mask, one mask may belong to two images of equal stem, or the list names images
            without a mask (the message names all of them).
    """
    masks = _match_masks(source.path, image_names)
    if source.list_file is not None:
        masks = _find_listed_masks(source.path, source.list_file, masks, image_names)
    if not masks:
        raise InputError(_explain_no_match(source.path, image_names))
    return Truth(source.path, classes, masks, lambda image: read_mask(masks[image]))


def _find_listed_masks(
    folder: Path, list_file: Path, masks: dict[str, Path], image_names: Sequence[str]
) -> dict[str, Path]:
    """Masks of the images that a list names with or without ending, also of images that the run lacks."""
    known, stems = set(image_names), group_by_stem(image_names)
    chosen: dict[str, Path] = {}
    lacking = []
    for entry in read_list(list_file):
        image = find_listed(entry, known, stems)
        if image is None:  # the run lacks it, but it may have a mask
            image, candidates = entry, (folder / f"{entry}.png", folder / f"{strip_ending(entry)}.png")
            mask = next((path for path in candidates if path.is_file()), None)
        else:
            mask = masks.get(image)
        if mask is None:
            lacking.append(entry)
        else:
            chosen[image] = mask
    if lacking:
        raise build_absence_error(lacking, f"The list {list_file}", f"a mask in {folder}")
    if not chosen.keys() & known:
        raise InputError(f"None of the images that {list_file} names is in this run; embed them, or give another list.")
    return chosen


def _match_masks(folder: Path, image_names: Sequence[str]) -> dict[str, Path]:
    # `Path.is_file` raises where a name is too long for a file; `os.path.isfile` says no.
    by_full_name = {name: f"{name}.png" for name in image_names if os.path.isfile(folder / f"{name}.png")}  # noqa: PTH113
    taken = set(by_full_name.values())
    matched = dict(by_full_name)
    image_of_mask: dict[str, str] = {}
    for name in image_names:
        mask = f"{strip_ending(name)}.png"
        # Full names go first: `a.jpg.png` belongs to `a.jpg`, not to an image `a.jpg.png`.
        if name in matched or mask in taken or not os.path.isfile(folder / mask):  # noqa: PTH113
            continue
        if mask in image_of_mask:
            raise InputError(
                f"The mask {mask} in {folder} may belong to {image_of_mask[mask]} or to {name}; name it "
                f"after the whole file name, {name}.png for instance."
            )
        image_of_mask[mask] = name
        matched[name] = mask
    return {name: folder / matched[name] for name in image_names if name in matched}


def _explain_no_match(folder: Path, image_names: Sequence[str]) -> str:
    if not image_names:
        return f"There are no images to score against the masks in {folder}; give a run that has some."
    example = next((str(path.relative_to(folder)) for path in folder.rglob("*.png")), None)
    if example is None:
        return f"The truth folder {folder} holds no PNG masks; expected {image_names[0]}.png for instance."
    stem = strip_ending(image_names[0])
    return (
        f"No mask in {folder} matches an image: it has {example} for instance, "
        f"where the image {image_names[0]} needs {image_names[0]}.png or {stem}.png; "
        "name the masks after the images, folders included."
    )
