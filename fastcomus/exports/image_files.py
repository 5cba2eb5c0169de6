"""Image files of an export: their names, and how they are linked, copied or converted."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fastcomus.errors import InputError
from fastcomus.images.found import UnreadableImage
from fastcomus.images.modes import read_exif_orientation
from fastcomus.images.reading import read_encoded_image, read_image
from fastcomus.images.roots import ImagePlace, StoredImage
from fastcomus.store.run_folder import RunFolder

_JPEG = ("JPEG", "MPO")
_QUALITY = 95  # of images that have to be written anew
_LONGEST_STEM = 200  # bytes; leaves room for endings in file names of at most 255


def choose_unique_stems(names: Sequence[str], flat: bool) -> dict[str, str]:
    """Choose unique names of files without endings; images that differ in their ending alone keep it.

    Names that differ in capitals alone count as equal, as they do on some disks.

    Args:
        names: Names of images.
        flat: Whether to make folders part of the name, and to replace spaces.

    Returns:
        Image name -> stem.
    """
    # Not by pathlib, which takes names such as "..jpg" and "a." apart otherwise, and not the same in every Python.
    plain = {name: _make_stem(os.path.splitext(name)[0], flat) for name in names}  # noqa: PTH122
    counts = Counter(stem.casefold() for stem in plain.values())
    alone = {name: counts[stem.casefold()] == 1 for name, stem in plain.items()}
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda name: (not alone[name], name)):
        wanted = stem = plain[name] if alone[name] else _make_stem(name, flat)
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{wanted}-{number}"
        taken.add(stem.casefold())
        stems[name] = stem
    return stems


def choose_ending(name: str, endings: Sequence[str]) -> str:
    """Choose the ending of an image file in an export.

    Args:
        name: Name of the image.
        endings: Those that the format knows, in lower case and without dots.

    Returns:
        The image's own ending with its dot where the format knows it, else ".jpg".
    """
    ending = os.path.splitext(name)[1]  # noqa: PTH122
    return ending if ending.lower().removeprefix(".") in endings else ".jpg"


def place_image(
    source: ImagePlace, folder: RunFolder, place: str, shape: tuple[int, ...], how: str, max_pixels: int
) -> None:
    """Link or copy an image into an export.

    An image that its EXIF data turn is written upright as a new file, and one of another kind than its new ending says
    is converted to JPEG.

    Args:
        source: Where the image lies.
        folder: The export.
        place: Where the image is to lie in it.
        shape: Height and width of its mask.
        how: "link" for a hard link, or a copy where the disk allows none; "copy".
        max_pixels: Largest image to decode, in pixels.

    Raises:
        InputError: The image cannot be read or has another shape than its mask.
    """
    try:
        content = read_encoded_image(source, max_pixels) if isinstance(source, StoredImage) else b""
        with Image.open(io.BytesIO(content) if isinstance(source, StoredImage) else source) as image:
            kind, orientation = image.format or "", read_exif_orientation(image)
            height, width = image.height, image.width
    except (OSError, ValueError, SyntaxError, UnreadableImage, Image.DecompressionBombError) as error:
        raise _build_change_error(source, str(error)) from error
    renamed = Path(place).suffix != os.path.splitext(str(source))[1]  # noqa: PTH122
    if orientation == 1 and (kind in _JPEG or not renamed):
        _check_shape(source, (height, width), shape)
        if isinstance(source, StoredImage):
            with folder.replace_file(place) as path:
                path.write_bytes(content)
        else:
            _place_file(source, folder, place, how)
        return
    try:
        pixels = read_image(source, max_pixels)
    except UnreadableImage as error:
        raise _build_change_error(source, str(error)) from error
    _check_shape(source, pixels.shape[:2], shape)
    with folder.replace_file(place) as path:
        # Without subsampling, so that colours do not run over the edges of masks.
        settings = {"quality": _QUALITY, "subsampling": 0} if renamed or kind in _JPEG else {}
        Image.fromarray(pixels).save(path, format="JPEG" if renamed or kind in _JPEG else kind, **settings)


def _place_file(source: Path, folder: RunFolder, place: str, how: str) -> None:
    with folder.replace_file(place) as path:
        if how == "link":
            try:
                path.hardlink_to(source.resolve())
                return
            except OSError:  # it lies on another disk, or the disk has no hard links
                pass
        shutil.copyfile(source, path)


def _make_stem(name: str, flat: bool) -> str:
    def is_awkward(character: str) -> bool:
        kind = unicodedata.category(character)
        return kind in ("Cc", "Zl", "Zp") or (flat and (character == "/" or kind == "Zs"))

    cleaned = "".join("_" if is_awkward(character) else character for character in name)
    folders, slash, last = cleaned.rpartition("/")
    if len(last.encode()) > _LONGEST_STEM:
        digest = hashlib.sha1(last.encode()).hexdigest()[:16]
        last = f"{last.encode()[: _LONGEST_STEM - 17].decode(errors='ignore')}~{digest}"
    return f"{folders}{slash}{last}"


def _check_shape(source: ImagePlace, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if tuple(found) != tuple(wanted):
        raise _build_change_error(
            source, f"it is {found[1]} x {found[0]} pixels and its mask {wanted[1]} x {wanted[0]}"
        )


def _build_change_error(source: ImagePlace, why: str) -> InputError:
    reason = why.strip().split("\n")[0]
    return InputError(f"the image {source} changed since it was embedded ({reason}); run fastcomus run again.")
