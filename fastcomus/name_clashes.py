"""Image names that are one name for some disks: those that differ in capitals, or in how an accent is written."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from fastcomus.errors import InputError


def check_names(names: Iterable[str], folder: Path) -> None:
    """Raise InputError where two of `names` would share a mask in `folder`, because its disk takes them for one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name and not tells_apart(other, name, folder):
            raise InputError(
                f"the images {other} and {name} would share a mask: the disk of {folder} takes these names for one. "
                "Rename one, or put the run on another disk."
            )


def tells_apart(one: str, other: str, folder: Path) -> bool:
    """Whether the disk of `folder` (that it will be on) keeps files of both names; True where none can be made."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryDirectory(dir=folder, suffix=".unfinished") as scratch:
            for name in (one, other):
                Path(scratch, name.replace("/", "_")).touch()
            return len(list(Path(scratch).iterdir())) == 2
    except OSError:
        return True
