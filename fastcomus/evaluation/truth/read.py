"""Reading of the ground truth that `--truth` names, into one of two forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastcomus.errors import InputError
from fastcomus.evaluation.truth import class_folders, coco, mask_folder, voc
from fastcomus.evaluation.truth.source import KINDS, TruthSource, parse_source
from fastcomus.evaluation.truth.truth import MAX_CLASSES, VOID, ImageLabels, Truth, read_classes, read_mask

__all__ = ["KINDS", "MAX_CLASSES", "VOID", "ImageLabels", "Truth", "TruthSource", "parse_source", "read_mask"]
__all__ += ["make_fitting_source", "read_truth"]


def read_truth(
    source: str | Path | TruthSource, classes_file: Path | None, image_names: Sequence[str]
) -> Truth | ImageLabels:
    """Find the truth of the images of a run, without opening any mask.

    Args:
        source: A folder of masks, or KIND:PATH[@SPLIT][@LIST], see `source.parse_source`.
        classes_file: One class name a line, background first; not needed where the data set names its classes.
        image_names: Images of the run, relative POSIX paths.

    Returns:
        True masks, or for a folder per class the true class of every image.

    Raises:
        InputError: The truth or its split cannot be used, the number of class names is not that of the data set's
            classes, or no image of the run has truth.
    """
    if not isinstance(source, TruthSource):
        source = parse_source(str(source))
    classes = () if classes_file is None else read_classes(classes_file)
    if source.kind == "folders":
        return class_folders.read(source, classes, image_names)
    if source.kind == "voc":
        return voc.read(source, classes, image_names)
    if source.kind in ("coco", "coco-voc"):
        return coco.read(source, classes, image_names)
    return mask_folder.read(source, classes, image_names)


def make_fitting_source(source: TruthSource, split_or_list: str) -> TruthSource:
    """Choose other images of the same data set, to fit a matching on.

    Args:
        source: The truth of the images to score.
        split_or_list: A split of the data set, or else a file with an image a line.

    Returns:
        The truth of the other images.

    Raises:
        InputError: There is neither a split nor a file of that name.
    """
    if (source.kind == "voc" and voc.has_split(source.path, split_or_list)) or (
        source.kind in ("coco", "coco-voc") and coco.has_split(source.path, split_or_list)
    ):
        return replace(source, split=split_or_list, list_file=None)
    if not Path(split_or_list).is_file():
        raise InputError(
            f"--fit-on {split_or_list} is neither a split of {source.path} nor a list file; "
            "give one of these to fit the matching on."
        )
    return replace(source, list_file=Path(split_or_list))
