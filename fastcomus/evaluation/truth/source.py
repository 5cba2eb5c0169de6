"""The value of `--truth`: the kind of data set, where it lies, and which of its images count."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fastcomus.errors import InputError, suggest_names, suggest_path

KINDS = ("masks", "voc", "coco", "coco-voc", "folders")
_WITH_SPLITS = ("voc", "coco", "coco-voc")


@dataclass(frozen=True)
class TruthSource:
    """A data set to score against.

    Attributes:
        kind: One of KINDS.
        path: Its folder.
        split: Name of the split; "" for kinds without splits.
        list_file: Names of the images that count; None for all.
    """

    kind: str
    path: Path
    split: str = ""
    list_file: Path | None = None


def parse_source(text: str) -> TruthSource:
    """Parse KIND:PATH[@SPLIT][@LIST].

    - `DIR` or `masks:DIR`: a folder of masks (PNG: 0 background, 255 void), named like the images. Where all masks hold
      only 0 and 255, 255 is object (`pair_counts.count_pairs`).
    - `voc:PATH@val`: PASCAL VOC; PATH is VOCdevkit or one year in it; `train`, `val`, `trainaug`, 2007's `test`, ...
    - `coco:PATH@val2017`: COCO; PATH holds `annotations/`. `coco-voc:` keeps the 20 classes of VOC, the rest is
      background.
    - `folders:DIR`: a folder per class, images below it; labels without masks.

    LIST is a file with an image a line.

    Args:
        text: The value of `--truth`.

    Returns:
        The parts.

    Raises:
        InputError: The folder or the list is missing, or the split is not given.
    """
    kind, colon, place = text.partition(":")
    if not colon or kind not in KINDS:
        kind, place = "masks", text
    path, parts = _split_at_signs(place)
    if not path.is_dir():
        raise InputError(_explain_no_folder(text, path))
    split, list_name = "", ""
    if kind in _WITH_SPLITS:
        if not parts:
            raise InputError(f"{text} does not say which split; write {kind}:{place}@{_suggest_split(kind)}.")
        split = parts.pop(0)
    if parts:
        list_name = parts.pop(0)
    if parts:
        raise InputError(f"{text} has too many parts after @; write {kind}:PATH@{'SPLIT@' * bool(split)}LIST.")
    if list_name and not os.path.isfile(list_name):  # noqa: PTH113
        near = suggest_path(Path(list_name)) or "; give a file with the name of an image a line."
        raise InputError(f"{text}: there is no list file {list_name}{near}")
    return TruthSource(kind, path, split, Path(list_name) if list_name else None)


def read_list(file: Path) -> list[str]:
    """Read names from a list file, one a line, without blank lines and repetitions.

    Args:
        file: The list.

    Returns:
        The names, in the order of the file.

    Raises:
        InputError: The file cannot be read as UTF-8 text or is empty.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {file} cannot be read as UTF-8 text: {error}.") from error
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise InputError(f"The list {file} is empty; write the name of an image a line.")
    return names


def _split_at_signs(place: str) -> tuple[Path, list[str]]:
    """Split at @ behind the longest existing folder, as folders' names may hold an @ too."""
    pieces = place.split("@")
    for count in range(len(pieces), 0, -1):
        path = "@".join(pieces[:count])
        if path and os.path.isdir(path):  # noqa: PTH112  (`Path.is_dir` raises for a name that is too long)
            return Path(path), pieces[count:]
    return Path(pieces[0]), pieces[1:]


def _suggest_split(kind: str) -> str:
    return "val" if kind == "voc" else "val2017"


def _explain_no_folder(text: str, path: Path) -> str:
    prefix, colon, _ = text.partition(":")
    if colon and prefix not in KINDS and len(prefix) > 1 and os.sep not in prefix:
        return (
            f"There is no kind of truth {prefix!r}{suggest_names(prefix, KINDS)} Give {', '.join(KINDS)}, or a folder."
        )
    if not os.path.lexists(path):  # `Path.exists` raises for a name that is too long
        near = suggest_path(path) or "; give the folder that holds the masks."
        return f"The truth folder {path} does not exist{near}"
    return f"The truth folder {path} is not a folder; give the folder that holds the masks."
