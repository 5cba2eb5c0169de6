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

from PIL import Image, ImageFile

from fastcomus.errors import InputError
from fastcomus.images.formats import list_formats
from fastcomus.images.found import UnreadableImage
from fastcomus.images.modes import read_exif_orientation
from fastcomus.images.reading import read_encoded_image, read_image
from fastcomus.images.roots import ImagePlace, StoredImage
from fastcomus.store.run_folder import RunFolder

# Of an image in an export, by its ending: formats that hold RGB and that other tools read.
_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "webp": "WEBP"}
_PLAIN_MODES = ("RGB", "L")
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


def choose_places(names: Sequence[str], folder: str, flat: bool) -> dict[str, str]:
    """Choose where each image lies in an export.

    Args:
        names: Names of images.
        folder: The folder of the images, with a slash at its end, or "".
        flat: As for `choose_unique_stems`.

    Returns:
        Image name -> relative POSIX path, each once, also without its ending: many tools tell images apart by that.
    """
    return {name: f"{folder}{stem}{choose_ending(name)}" for name, stem in choose_unique_stems(names, flat).items()}


def choose_ending(name: str) -> str:
    """Choose the ending of an image file in an export: its own with its dot where other tools read it, else .jpg."""
    ending = os.path.splitext(name)[1]  # noqa: PTH122
    return ending if _get_format(ending) else ".jpg"


def place_image(
    source: ImagePlace, folder: RunFolder, place: str, shape: tuple[int, ...], how: str, max_pixels: int
) -> None:
    """Link or copy an image into an export.

    An image that other tools would not open, or would show otherwise than it was seen here, is written anew, upright
    and as RGB: one that its EXIF data turn, of another kind than its ending says, of other pixels than 8-bit grey or
    RGB (palettes, CMYK, 16 bits, floats), with transparency, or with several pages.

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
    wanted = _get_format(Path(place).suffix)
    try:
        content = read_encoded_image(source, max_pixels) if isinstance(source, StoredImage) else b""
        with Image.open(
            io.BytesIO(content) if isinstance(source, StoredImage) else source, formats=list_formats(str(source))
        ) as image:
            is_as_wanted = read_exif_orientation(image) == 1 and _is_plain(image, wanted)
            height, width = image.height, image.width
    except (OSError, ValueError, SyntaxError, UnreadableImage, Image.DecompressionBombError) as error:
        raise _build_change_error(source, str(error)) from error
    if is_as_wanted:
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
        settings = {"JPEG": {"quality": _QUALITY, "subsampling": 0}, "WEBP": {"quality": _QUALITY}}.get(wanted, {})
        Image.fromarray(pixels).save(path, format=wanted, **settings)


def _get_format(ending: str) -> str:
    return _FORMATS.get(ending.lower().removeprefix("."), "")


def _is_plain(image: ImageFile.ImageFile, wanted: str) -> bool:
    """Whether every tool shows a file of format `wanted` as it is seen here."""
    if image.mode not in _PLAIN_MODES or image.has_transparency_data:
        return False
    if image.format == "MPO":  # of two eyes or sizes: its first part is a whole JPEG
        return wanted == "JPEG"
    try:
        return image.format == wanted and getattr(image, "n_frames", 1) == 1
    except Exception:  # a damaged second page
        return False


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
