"""Where images are: a folder of this machine, or something that only gives their bytes (a tar, a URL).

A root is a `Path` or a `StoredImages`. Both give an image by `root / name`, for `Backend.decode`, and name themselves
in messages and run.json by `str(root)`. Both can be pickled, so that other processes may be given a root and names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path


class StoredImage(ABC):
    """An image that is no file of its own. `str()` is what messages call it; it holds no credentials."""

    @abstractmethod
    def read_encoded(self, most_bytes: int) -> bytes:
        """Return the bytes of the image file. Raises UnreadableImage if it is not to be had or has more."""

    @abstractmethod
    def __str__(self) -> str: ...


class StoredImages(ABC):
    """Images that are no files of their own. `str()` is the address that `listing.open_root` takes."""

    @abstractmethod
    def __truediv__(self, name: str) -> StoredImage:
        """The image `name`. Nothing is read or looked up yet."""

    @abstractmethod
    def __str__(self) -> str: ...


ImageRoot = Path | StoredImages
ImagePlace = Path | StoredImage


def describe_root(root: ImageRoot) -> str:
    """Return what run.json calls `root`, the same from any current folder."""
    return str(root.resolve() if isinstance(root, Path) else root)


def make_root_absolute(root: ImageRoot) -> ImageRoot:
    """Return `root` in a form that does not depend on the current folder."""
    return root.absolute() if isinstance(root, Path) else root
