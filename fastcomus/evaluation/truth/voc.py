"""Truth from PASCAL VOC: VOCdevkit/VOC2012/{ImageSets/Segmentation, SegmentationClass, SegmentationClassAug}."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.matching_names import match_images
from fastcomus.evaluation.truth.source import TruthSource, read_list
from fastcomus.evaluation.truth.truth import (
    Truth,
    build_absence_error,
    build_no_image_error,
    choose_class_names,
    read_mask,
)

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
AUGMENTED_SPLIT = "trainaug"  # VOC and SBD together; its masks lie in SegmentationClassAug
# The given folder may be one year or a folder above it. Where two years have a split, the later one counts.
_YEARS = (".", "VOC2012", "VOC2007", "VOCdevkit/VOC2012", "VOCdevkit/VOC2007")


def read(source: TruthSource, given: tuple[str, ...], image_names: Sequence[str]) -> Truth:
    """Find the masks of the images of a split.

    The mask of `2007_000032.jpg`, in whatever folder of the run, is `SegmentationClass/2007_000032.png`, or
    `SegmentationClassAug/2007_000032.png` in the split `trainaug`. An image of another ending is taken where no other
    has that name.

    Args:
        source: The data set and its split; a list file replaces the split's own list.
        given: Names of the classes; () for VOC's own.
        image_names: Images of the run.

    Returns:
        The truth of all images of the split.

    Raises:
        InputError: The split is missing or names images without a mask (the message names all of them), or two images
            of the run may be the same one of the split.
    """
    year = find_year(source.path, source.split)
    if year is None:
        raise InputError(_explain_no_split(source.path, source.split))
    classes = choose_class_names(given, CLASSES, "PASCAL VOC")
    folder = year / ("SegmentationClassAug" if source.split == AUGMENTED_SPLIT else "SegmentationClass")
    listed = source.list_file or _locate_split_file(year, source.split)
    stems = {PurePosixPath(_read_first_column(line)).stem for line in read_list(listed)}
    masks = {stem: folder / f"{stem}.png" for stem in sorted(stems)}
    if lacking := [stem for stem, mask in masks.items() if not mask.is_file()]:
        raise build_absence_error(lacking, str(listed), f"a mask in {folder}")
    of_image = {f"{stem}.jpg": mask for stem, mask in masks.items()}
    images, _ = match_images(list(of_image), image_names, listed)
    if not images:
        raise build_no_image_error(listed, next(iter(of_image)), image_names)
    files = {images.get(name, name): mask for name, mask in of_image.items()}
    return Truth(source.path, classes, files, lambda image: read_mask(files[image]))


def has_split(path: Path, split: str) -> bool:
    """Tell whether the data set in a folder has a split of that name."""
    return find_year(path, split) is not None


def find_year(path: Path, split: str) -> Path | None:
    """Find the folder of the year that has a split.

    Args:
        path: That folder or one above it.
        split: Name of the split.

    Returns:
        None where no year has the split.
    """
    return next((path / year for year in _YEARS if _locate_split_file(path / year, split).is_file()), None)


def _locate_split_file(year: Path, split: str) -> Path:
    return year / "ImageSets" / "Segmentation" / f"{PurePosixPath(split).name}.txt"


def _read_first_column(line: str) -> str:
    """Return a line's image; trainaug.txt may hold pairs `/JPEGImages/X.jpg /SegmentationClassAug/X.png`."""
    return line.split()[0]


def _explain_no_split(path: Path, split: str) -> str:
    there = {file.stem for year in _YEARS for file in (path / year / "ImageSets" / "Segmentation").glob("*.txt")}
    if not there:
        return f"{path} holds no PASCAL VOC (no ImageSets/Segmentation); give the folder VOC2012 or the one above it."
    return f"PASCAL VOC in {path} has no split {split!r}; it has {', '.join(sorted(there))}."
