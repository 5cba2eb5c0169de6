"""Truth from a folder of masks named like the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.source import TruthSource, read_list
from fastcomus.evaluation.truth.truth import (
    Truth,
    build_absence_error,
    find_listed,
    group_by_stem,
    read_mask,
)
from fastcomus.images.mask_files import MaskFiles


def read(source: TruthSource, classes: tuple[str, ...], image_names: Sequence[str]) -> Truth:
    """Find the mask of each image: a palette or grey PNG of labels, 0 background, 255 void.

    The mask of `sub/a.jpg` is `sub/a.jpg.png`, or else `sub/a.png`, or one of the other names that `MaskFiles` finds.
    Masks without an image are left out, and so are images without a mask unless the list names them.

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
    files = MaskFiles(source.path)
    masks = _match_masks(files, image_names)
    if source.list_file is not None:
        masks = _find_listed_masks(files, source.list_file, masks, image_names)
    if not masks and not image_names:
        raise InputError(f"There are no images to score against the masks in {source.path}; give a run that has some.")
    if not masks:
        raise InputError(files.explain_no_match(image_names, "The truth folder"))
    return Truth(source.path, classes, masks, lambda image: read_mask(masks[image]), lambda: _list_others(files, masks))


def _find_listed_masks(
    files: MaskFiles, list_file: Path, masks: dict[str, Path], image_names: Sequence[str]
) -> dict[str, Path]:
    """Masks of the images that a list names with or without ending, also of images that the run lacks."""
    known, stems = set(image_names), group_by_stem(image_names)
    chosen: dict[str, Path] = {}
    lacking = []
    for entry in read_list(list_file):
        image = find_listed(entry, known, stems)
        if image is None:  # the run lacks it, but it may have a mask
            image, mask = entry, files.find(entry)
        else:
            mask = masks.get(image)
        if mask is None:
            lacking.append(entry)
        else:
            chosen[image] = mask
    if lacking:
        raise build_absence_error(lacking, f"The list {list_file}", f"a mask in {files.folder}")
    if not chosen.keys() & known:
        raise InputError(f"None of the images that {list_file} names is in this run; embed them, or give another list.")
    return chosen


def _match_masks(files: MaskFiles, image_names: Sequence[str]) -> dict[str, Path]:
    matched = {name: mask for name in image_names if (mask := files.find_by_full_name(name))}
    taken = set(matched.values())
    image_of_mask: dict[Path, str] = {}
    for name in image_names:
        mask = None if name in matched else files.find_by_stem(name)
        # Full names go first: `a.jpg.png` belongs to `a.jpg`, not to an image `a.jpg.png`.
        if mask is None or mask in taken:
            continue
        if mask in image_of_mask:
            raise InputError(
                f"The mask {mask.relative_to(files.folder).as_posix()} in {files.folder} may belong to "
                f"{image_of_mask[mask]} or to {name}; name it after the whole file name, {name}.png for instance."
            )
        image_of_mask[mask] = name
        matched[name] = mask
    return {name: matched[name] for name in image_names if name in matched}


def _list_others(files: MaskFiles, masks: Mapping[str, Path]) -> list[Path]:
    taken = set(masks.values())
    return [file for name in files.names if (file := files.folder / name) not in taken]
