"""Where images lie in an export, and how they come there."""

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

from fastcomus.errors import InputError, get_first_line
from fastcomus.images.found import UnreadableImage
from fastcomus.images.modes import read_exif_orientation
from fastcomus.images.reading import read_encoded_image, read_image
from fastcomus.images.roots import ImagePlace, StoredImage
from fastcomus.store.run_folder import RunFolder

_JPEG = ("JPEG", "MPO")
_QUALITY = 95  # of images that have to be written anew
_LONGEST_STEM = 200  # bytes: with every ending still a file name


def choose_unique_stems(names: Sequence[str], flat: bool) -> dict[str, str]:
    """Image names without their endings, each once: of `a.jpg` and `a.png` both keep theirs, `a.jpg` and `a.png`.

    Capitals do not tell names apart, since they do not on every disk. `flat`: without folders, which become part of
    the name, and without spaces.
    """
    plain = {name: _make_stem(os.path.splitext(name)[0], flat) for name in names}
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
    """The ending of an image's name with its dot; ".jpg" where it is not, in any capitals, among `endings`."""
    ending = os.path.splitext(name)[1]
    return ending if ending.lower().removeprefix(".") in endings else ".jpg"


def place_image(
    source: ImagePlace, folder: RunFolder, place: str, shape: tuple[int, ...], how: str, max_pixels: int
) -> None:
    """Bring an image to `place` in `folder`: by a hard link where `how` is "link" and the disk allows it, else a copy.

    An image that its EXIF data turn, or whose ending says another kind of file than it is now to be, is written anew,
    upright. `shape`: (H, W) of its mask; InputError where the image has another one, or cannot be read.
    """
    try:
        content = read_encoded_image(source, max_pixels) if isinstance(source, StoredImage) else b""
        with Image.open(io.BytesIO(content) if isinstance(source, StoredImage) else source) as image:
            kind, orientation = image.format or "", read_exif_orientation(image)
            height, width = image.height, image.width
    except (OSError, ValueError, SyntaxError, UnreadableImage, Image.DecompressionBombError) as error:
        raise _build_change_error(source, get_first_line(error)) from error
    renamed = Path(place).suffix != os.path.splitext(str(source))[1]
    if orientation == 1 and (kind in _JPEG or not renamed):
        _check_shape(source, (height, width), shape)
        if isinstance(source, StoredImage):
            with folder.replace_file(place) as path:
                path.write_bytes(content)
        else:
            _transfer(source, folder, place, how)
        return
    try:
        pixels = read_image(source, max_pixels)
    except UnreadableImage as error:
        raise _build_change_error(source, get_first_line(error)) from error
    _check_shape(source, pixels.shape[:2], shape)
    with folder.replace_file(place) as path:
        # 4:4:4, so that colours do not run over the edges of masks
        settings = {"quality": _QUALITY, "subsampling": 0} if renamed or kind in _JPEG else {}
        Image.fromarray(pixels).save(path, format="JPEG" if renamed or kind in _JPEG else kind, **settings)


def _transfer(source: Path, folder: RunFolder, place: str, how: str) -> None:
    with folder.replace_file(place) as path:
        if how == "link":
            try:
                os.link(os.path.realpath(source), path)
                return
            except OSError:  # another disk, or one without links
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
    return InputError(f"the image {source} changed since it was embedded ({why}); run fastcomus run again.")
