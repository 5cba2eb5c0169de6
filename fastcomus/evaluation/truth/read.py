"""Ground truth to score against: what `--truth` names, read into one of two forms."""

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

    `source`: a folder of masks, or KIND:PATH[@SPLIT][@LIST], see `source.parse_source`. `classes_file`: one class name
        a line, background first; data sets that name their classes need none. `image_names`: relative POSIX paths.

    Raises InputError when the truth or its split cannot be used, when the class list has another length than the data
    set's, or when the images of the run have no truth at all.
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
    """The same truth on other images: those of a split of the data set by that name, else of the list in that file."""
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
