"""Truth from a folder per class: labels of images, without masks."""

from __future__ import annotations

from collections.abc import Sequence

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.source import TruthSource, read_list
from fastcomus.evaluation.truth.truth import (
    ImageLabels,
    build_absence_error,
    build_no_image_error,
    choose_class_names,
    find_listed,
    group_by_stem,
)
from fastcomus.images.folder import find_images


def read(source: TruthSource, given: tuple[str, ...], image_names: Sequence[str]) -> ImageLabels:
    """Read the class of every image from its path: that of `cat/sub/a.jpg` below the folder is `cat`.

    Args:
        source: The folder; with a list file, only the images that it names count.
        given: Names of the classes, in the order of the folders' names; () for these names themselves.
        image_names: Images of the run, with the same relative paths: that folder must have been embedded.

    Returns:
        Classes in the order of the folders' names, and the class of every image.

    Raises:
        InputError: An image lies outside the class folders, there are fewer than two classes, or the list names
            images that are not there (the message names all of them).
    """
    found = find_images(source.path).names
    loose = [name for name in found if "/" not in name]
    if loose:
        raise InputError(f"{source.path} holds {loose[0]} beside its class folders; move it into one of them.")
    folders = sorted({name.split("/")[0] for name in found})
    if len(folders) < 2:
        raise InputError(f"{source.path} holds one class folder ({folders[0]}) where at least two are needed.")
    classes = choose_class_names(given, tuple(folders), str(source.path))
    labels = {name: folders.index(name.split("/")[0]) for name in found}
    if source.list_file is not None:
        stems = group_by_stem(found)
        entries = {entry: find_listed(entry, labels, stems) for entry in read_list(source.list_file)}
        if lacking := [entry for entry, name in entries.items() if name is None]:
            raise build_absence_error(lacking, f"The list {source.list_file}", f"a file in {source.path}")
        labels = {name: labels[name] for name in entries.values() if name is not None}
    if not labels.keys() & set(image_names):
        raise build_no_image_error(source.path, next(iter(labels)), image_names)
    return ImageLabels(source.path, classes, labels)
