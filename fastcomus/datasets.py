"""Ground truth to score against: a folder of masks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from fastcomus.errors import InputError

VOID = 255  # the truth label of pixels that are not scored, as in PASCAL VOC
MAX_CLASSES = VOID  # background is 0, so at most the labels 0 .. 254


@dataclass(frozen=True)
class Truth:
    """Where the truth of each scored image lies.

    `folder`: the folder that was searched.
    `classes`: names in label order, background first; empty when no names were given. `evaluation.evaluate`
        then numbers them up to the highest label it meets.
    `masks`: image name (relative POSIX path, as in the run) -> its mask; only images that have one.
    """

    folder: Path
    classes: tuple[str, ...]
    masks: dict[str, Path]


def read_truth(folder: Path, classes_file: Path | None, image_names: Sequence[str]) -> Truth:
    """Find the mask of each image, without opening any.

    `folder`: PNG masks, palette or grey, one label a pixel, 0 background, 255 void. The mask of `sub/a.jpg`
        is `sub/a.jpg.png`, or else `sub/a.png`.
    `classes_file`: one class name a line, background first; None to number the classes.
    `image_names`: relative POSIX paths. Images without a mask are left out; so are masks without an image.

    Raises InputError when the folder or the file cannot be used, when no image has a mask, or when two images
    of equal stem have one mask between them.
    """
    if not folder.is_dir():
        raise InputError(f"The truth folder {folder} is not a folder; give the folder that holds the masks.")
    classes = () if classes_file is None else _read_classes(classes_file)
    masks = _match_masks(folder, image_names)
    if not masks:
        raise InputError(_nothing_matches(folder, image_names))
    return Truth(folder, classes, masks)


def read_mask(path: Path) -> np.ndarray:
    """Labels of a PNG: (H, W) uint8, or uint16 / int32 for a 16-bit one. A palette PNG gives its indices.

    Raises InputError when the file is not a readable PNG, or is in colour or has transparency.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, grey_step = image.mode, _grey_step(image)
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
    return labels // labels.dtype.type(grey_step) if grey_step > 1 else labels


def _read_classes(classes_file: Path) -> tuple[str, ...]:
    try:
        lines = classes_file.read_text(encoding="utf-8-sig").rstrip().splitlines()
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
        # A blank line would silently shift every later label, and equal names would hide one another's score.
        if not name:
            raise InputError(f"Line {number} of the classes file {classes_file} is blank; name that class.")
        if name in first_line:
            raise InputError(
                f"Lines {first_line[name]} and {number} of the classes file {classes_file} "
                f"are both {name!r}; give each class its own name."
            )
        first_line[name] = number
    return names


def _match_masks(folder: Path, image_names: Sequence[str]) -> dict[str, Path]:
    by_full_name = {name: f"{name}.png" for name in image_names if os.path.isfile(folder / f"{name}.png")}
    taken = set(by_full_name.values())
    matched = dict(by_full_name)
    image_of_mask: dict[str, str] = {}
    for name in image_names:
        mask = f"{os.path.splitext(name)[0]}.png"
        # The full name says more than the stem: `a.jpg.png` belongs to `a.jpg`, not to an image `a.jpg.png`.
        if name in matched or mask in taken or not os.path.isfile(folder / mask):
            continue
        if mask in image_of_mask:
            raise InputError(
                f"The mask {mask} in {folder} may belong to {image_of_mask[mask]} or to {name}; name it "
                f"after the whole file name, {name}.png for instance."
            )
        image_of_mask[mask] = name
        matched[name] = mask
    return {name: folder / matched[name] for name in image_names if name in matched}


def _nothing_matches(folder: Path, image_names: Sequence[str]) -> str:
    if not image_names:
        return f"There are no images to score against the masks in {folder}; give a run that has some."
    example = next((str(path.relative_to(folder)) for path in folder.rglob("*.png")), None)
    if example is None:
        return f"The truth folder {folder} holds no PNG masks; expected {image_names[0]}.png for instance."
    stem = os.path.splitext(image_names[0])[0]
    return (
        f"No mask in {folder} matches an image: it has {example} for instance, "
        f"where the image {image_names[0]} needs {image_names[0]}.png or {stem}.png; "
        "name the masks after the images, folders included."
    )


def _grey_step(image: ImageFile.ImageFile) -> int:
    """Pillow spreads 2- and 4-bit grey over 0 to 255; dividing by this gives back what the file holds."""
    raw_mode = image.tile[0][3] if image.tile else None
    return {"L;2": 85, "L;4": 17}.get(raw_mode, 1) if isinstance(raw_mode, str) else 1
