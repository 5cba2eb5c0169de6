"""Which images of a run are those that an annotation file or a list names, folders included."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastcomus.errors import InputError

_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # of a file, and not the second half of "v1.2"


def match_images(entries: Sequence[str], image_names: Sequence[str], place: Path) -> tuple[dict[str, str], list[str]]:
    """Find the image for every entry.

    An image is an entry's if their paths are equal, or else equal but for the ending, or else if one path is the other
    behind further folders. By the file's name alone, in whatever folders, it is so only where neither side has that
    name twice, and where folders told nothing of any image.

    Args:
        entries: Relative POSIX paths, each once.
        image_names: Images of the run, likewise.
        place: Where the entries stand, for messages.

    Returns:
        Entry -> image, in the order of the entries, and the entries matched by the file's name alone.

    Raises:
        InputError: An image may be one of several entries, or an entry one of several images.
    """
    of_stem: dict[str, list[str]] = {}
    for entry in entries:
        of_stem.setdefault(_split(entry)[-1], []).append(entry)
    best: dict[str, tuple[int, list[str]]] = {}  # entry -> how well its images fit, and these images
    by_name: dict[str, list[str]] = {}
    for image in image_names:
        candidates = of_stem.get(_split(image)[-1], [])
        fits = {entry: fit for entry in candidates if (fit := _measure_fit(entry, image))}
        if fits:
            fit = max(fits.values())
            chosen = [entry for entry in fits if fits[entry] == fit]
            if len(chosen) > 1:
                raise InputError(
                    f"The image {image} of this run may be {' or '.join(chosen[:3])} of {place}; embed the folder "
                    "above, so that the images' names have folders too."
                )
            known, images = best.get(chosen[0], (0, []))
            if fit >= known:
                best[chosen[0]] = (fit, [*images, image] if fit == known else [image])
        elif len(candidates) == 1:
            by_name.setdefault(candidates[0], []).append(image)
    for entry, (_, images) in best.items():
        if len(images) > 1:
            raise InputError(
                f"The images {images[0]} and {images[1]} of this run may both be {entry} of {place}; embed a folder "
                "that holds each image once."
            )
    matched = {entry: images[0] for entry, (_, images) in best.items()}
    lone = {} if matched else {entry: images[0] for entry, images in by_name.items() if len(images) == 1}
    return {entry: (matched | lone)[entry] for entry in entries if entry in matched or entry in lone}, list(lone)


def _split(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(unicodedata.normalize("NFC", name)).parts
    return (*parts[:-1], _ENDING.sub("", parts[-1])) if parts else ("",)


def _measure_fit(entry: str, image: str) -> int:
    """Measure how well two paths with the same stem fit: 0 where their folders contradict each other."""
    one, other = _split(entry), _split(image)
    shorter, longer = sorted((one, other), key=len)
    if longer[-len(shorter) :] != shorter:
        return 0
    endings = PurePosixPath(entry).suffix, PurePosixPath(image).suffix
    same_ending = (endings[0] == endings[1]) + (endings[0].lower() == endings[1].lower())
    return 3 * (len(shorter) + 1000 * (one == other)) + same_ending
