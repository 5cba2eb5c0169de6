"""The masks of an iteration of self-training: their names, which are absent, and how far two iterations agree."""

from __future__ import annotations

from collections.abc import Sequence

from fastcomus.run.contents import ImageSource
from fastcomus.run.workplace import Workplace
from fastcomus.store.masks import get_mask_file_name, get_mask_path, read_class_map


def make_mask_name(name: str, source: ImageSource, image: str) -> str:
    """Return the name of the mask of an image in iteration `name`."""
    return get_mask_path(_make_folder_name(name, source), image)


def make_confidence_name(name: str, source: ImageSource, image: str) -> str:
    """Return the name of a grey image, 255 where the probability of the label is 1."""
    return f"{_make_folder_name(name, source)}/confidence/{get_mask_file_name(image)}"


def _make_folder_name(name: str, source: ImageSource) -> str:
    return f"{name}/{source.folder}" if source.folder else name


def list_absent_masks(name: str, sources: Sequence[ImageSource], at: Workplace) -> list[str]:
    """Return the names of masks that do not exist: of images that could not be labelled, or lost ones."""
    masks = (make_mask_name(name, source, image) for source in sources for image in source.names)
    return sorted(mask for mask in masks if not at.folder.resolve_file(mask).exists())


def measure_agreement(iteration: int, sources: Sequence[ImageSource], at: Workplace) -> float:
    """Compare the masks of an iteration with those of the one before.

    Args:
        iteration: Number of the later iteration, at least 2.
        sources: The images; those that lack one of the two masks do not count.
        at: The run folder.

    Returns:
        Of the pixels that are object in at least one mask, the share in [0, 1] with the same label in both; 1 if there
        are no such pixels.
    """
    same = of_either = 0
    for source in sources:
        for image in source.names[at.processes.rank :: at.processes.size]:
            names = [make_mask_name(f"iteration-{number}", source, image) for number in (iteration - 1, iteration)]
            if all(at.folder.resolve_file(name).exists() for name in names):
                before, now = (read_class_map(at.folder, name) for name in names)
                same += int(((before == now) & (now > 0)).sum())
                of_either += int(((before > 0) | (now > 0)).sum())
    totals = [sum(counts) for counts in zip(*at.processes.gather((same, of_either)), strict=True)]
    return totals[0] / totals[1] if totals[1] else 1.0
