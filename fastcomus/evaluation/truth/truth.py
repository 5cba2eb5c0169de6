"""The two forms of truth, and what the readers of all kinds share."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from fastcomus.errors import InputError, suggest_path
from fastcomus.images.mask_files import strip_ending

VOID = 255  # the truth label of pixels that are not scored, as in PASCAL VOC
MAX_CLASSES = VOID  # background is 0, so at most the labels 0 .. 254


@dataclass(frozen=True)
class Truth:
    """The true class of every pixel.

    Attributes:
        place: The folder that was searched, for messages.
        classes: Names in label order, background first; () where no names were given, and `class_maps.evaluate`
            numbers them up to the highest label.
        files: Image name (relative POSIX path, as in the run) -> the file that holds its truth. An image that the
            run lacks stands under the name that it would have.
        read: Gives the labels (H, W) of an image by name, integers; `VOID` is not scored. May be called from several
            threads at once; raises InputError.
        list_others: Lists masks of the same folder that belong to no image of the run.
    """

    place: Path
    classes: tuple[str, ...]
    files: Mapping[str, Path]
    read: Callable[[str], np.ndarray]
    list_others: Callable[[], Sequence[Path]] = tuple


@dataclass(frozen=True)
class ImageLabels:
    """The true class of every image, without masks.

    Attributes:
        place: The folder that was searched, for messages.
        classes: Names, without background.
        labels: Image name -> index into `classes`.
    """

    place: Path
    classes: tuple[str, ...]
    labels: Mapping[str, int]


def read_mask(path: Path) -> np.ndarray:
    """Read the labels of a grey or palette PNG.

    Args:
        path: The file.

    Returns:
        (H, W) uint8, or uint16 or int32 for 16 bits a pixel, whose 65535 is 255 where all else is 0; of a palette PNG,
        the indices.

    Raises:
        InputError: The file is not a readable PNG, or has colours or transparency.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, grey_step = image.mode, _find_grey_step(image)
            labels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"The mask {path} cannot be read as a PNG: {error}.") from error
    if mode not in ("1", "L", "P", "I;16", "I"):
        raise InputError(
            f"The mask {path} has colours or transparency (mode {mode}) where labels are needed; "
            "save it as a palette or grey PNG."
        )
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype != np.uint8 and np.isin(labels, (0, 65535)).all():
        return (labels > 0) * np.uint8(VOID)
    return labels // labels.dtype.type(grey_step) if grey_step > 1 else labels


def read_classes(classes_file: Path) -> tuple[str, ...]:
    """Read the names of classes, one a line.

    Args:
        classes_file: The file.

    Returns:
        The names in label order.

    Raises:
        InputError: The file cannot be read, a line is blank, a name stands twice, or there are more than MAX_CLASSES.
    """
    try:
        lines = classes_file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError as error:
        near = suggest_path(classes_file) or "; give a file with the name of a class a line, background first."
        raise InputError(f"The classes file {classes_file} does not exist{near}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The classes file {classes_file} cannot be read as UTF-8 text: {error}.") from error
    names = tuple(line.strip() for line in lines)
    if not names:
        raise InputError(f"The classes file {classes_file} is empty; write a name a line, background first.")
    if len(names) > MAX_CLASSES:
        raise InputError(
            f"The classes file {classes_file} has {len(names)} names where {MAX_CLASSES} at most can be told "
            f"apart (label {VOID} is void); shorten it."
        )
    first_line: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        # A blank line would shift all later labels, and of two equal names only one score would be stored.
        if not name:
            raise InputError(f"Line {number} of the classes file {classes_file} is blank; name that class.")
        if name in first_line:
            raise InputError(
                f"Lines {first_line[name]} and {number} of the classes file {classes_file} "
                f"are both {name!r}; give each class its own name."
            )
        first_line[name] = number
    return names


def choose_class_names(given: tuple[str, ...], classes: tuple[str, ...], owner: str) -> tuple[str, ...]:
    """Choose between a user's names of classes and the data set's own.

    Args:
        given: The user's names; () for none.
        classes: The data set's names.
        owner: The data set, for the message.

    Returns:
        The user's names where there are any.

    Raises:
        InputError: The numbers of names differ.
    """
    if given and len(given) != len(classes):
        raise InputError(
            f"The classes file has {len(given)} names and {owner} {len(classes)} classes; "
            "leave --classes out, or give one name for each."
        )
    return given or classes


def build_absence_error(names: Sequence[str], whose: str, what: str) -> InputError:
    """Build an error that names all listed images that lack something.

    Args:
        names: The images.
        whose: Where the images are listed, in the words of the message.
        what: The missing thing, in the words of the message.

    Returns:
        The error, to be raised.
    """
    return InputError(
        f"{whose} names {len(names)} image{'s' * (len(names) > 1)} without {what}: {', '.join(names)}; "
        "add them, or take them off the list."
    )


def find_listed(entry: str, names: Container[str], stems: Mapping[str, Sequence[str]]) -> str | None:
    """Find the name that an entry of a list stands for: the same name, or the one that differs in its ending.

    Args:
        entry: Line of the list.
        names: All names.
        stems: The same names as `group_by_stem` groups them.

    Returns:
        The name; None where there is none.

    Raises:
        InputError: The entry may stand for several names.
    """
    if entry in names:
        return entry
    candidates = stems.get(entry) or stems.get(strip_ending(entry)) or ()
    if len(candidates) > 1:
        raise InputError(
            f"The list names {entry}, which may be {' or '.join(candidates)}; write the whole name of the file."
        )
    return candidates[0] if candidates else None


def group_by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Group names by what they are without their endings."""
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(strip_ending(name), []).append(name)
    return stems


def build_no_image_error(place: Path, example: str, image_names: Sequence[str]) -> InputError:
    """Make an error for a run none of whose images belongs to the data set.

    Args:
        place: Where the data set lies.
        example: One of its images.
        image_names: Images of the run.

    Returns:
        The error, to be raised.
    """
    if not image_names:
        return InputError(f"There are no images to score against {place}; give a run that has some.")
    return InputError(
        f"None of the images of this run is in {place}: it has {example} for instance, the run {image_names[0]}; "
        "embed the images of that data set."
    )


def _find_grey_step(image: ImageFile.ImageFile) -> int:
    """Find the factor by which Pillow multiplies grey values of 2 and 4 bits to spread them over 0 to 255."""
    raw_mode = image.tile[0][3] if image.tile else None
    return {"L;2": 85, "L;4": 17}.get(raw_mode, 1) if isinstance(raw_mode, str) else 1
