"""Masks of images in a folder, found by the images' names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from fastcomus.images.found import is_hidden

_ADDED = ("", "_mask", "-mask")  # between the image's name and .png


class MaskFiles:
    """The PNG masks of a folder.

    The mask of `sub/a.jpg` is `sub/a.jpg.png` or `sub/a.png`, or else the like with `_mask` or `-mask` before the
    ending, with the ending in capitals, or with composed letters where the image's name has decomposed ones, or the
    other way round. A mask named after the image's whole name goes before one named after its stem.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, image: str) -> Path | None:
        """Return the mask of an image, given by its name in its folder; None where there is none."""
        exact = self._find_exact(image) or self._find_exact(strip_ending(image))
        return exact or self.find_by_full_name(image) or self.find_by_stem(image)

    def find_by_full_name(self, image: str) -> Path | None:
        """Return the mask that is named after the image's whole name; None where there is none."""
        return self._find_exact(image) or self._find_alike(image)

    def find_by_stem(self, image: str) -> Path | None:
        """Return the mask that is named after the image's name without its ending; None where there is none."""
        stem = strip_ending(image)
        return self._find_exact(stem) or self._find_alike(stem)

    def explain_no_match(self, images: Sequence[str], what: str) -> str:
        """Return a sentence for the case that no image has a mask, which begins with `what` the folder is."""
        first, stem = images[0], strip_ending(images[0])
        if not self.names:
            return f"{what} {self.folder} holds no PNG masks; expected {first}.png for instance."
        return (
            f"No mask in {self.folder} matches an image: it has {self.names[0]} for instance, where the image {first} "
            f"needs {first}.png or {stem}.png; name the masks after the images, folders included."
        )

    @cached_property
    def names(self) -> list[str]:
        """All PNG files as sorted relative POSIX paths, without hidden ones; links to folders are not followed."""
        found = []
        for folder, below, files in os.walk(self.folder):
            below[:] = [name for name in below if not is_hidden(name)]
            place = Path(folder).relative_to(self.folder)
            found += [(place / name).as_posix() for name in files if _is_png(name) and not is_hidden(name)]
        return sorted(found)

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", name[: -len(".png")]): name for name in reversed(self.names)}

    def _find_exact(self, stem: str) -> Path | None:
        file = self.folder / f"{stem}.png"
        return file if os.path.isfile(file) else None  # noqa: PTH113  (`Path.is_file` raises where a name is too long)

    def _find_alike(self, stem: str) -> Path | None:
        """Look through all names, which have to be listed for that."""
        stem = unicodedata.normalize("NFC", stem)
        name = next((self._by_stem[stem + added] for added in _ADDED if stem + added in self._by_stem), None)
        return None if name is None else self.folder / name


def strip_ending(name: str) -> str:
    """Return a relative POSIX path without the ending of its file name."""
    return os.path.splitext(name)[0]  # noqa: PTH122  (pathlib takes names such as "..jpg" apart otherwise)


def _is_png(name: str) -> bool:
    return name.lower().endswith(".png")
