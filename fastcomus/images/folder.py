"""Images in a folder, to any depth."""

# Paths are strings here, which is faster and keeps odd names as they are.
# ruff: noqa: PTH112, PTH113, PTH116, PTH119

from __future__ import annotations

import heapq
import json
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fastcomus.errors import InputError, escape_invalid_utf8, suggest_path
from fastcomus.images.formats import (
    LOOKED_FOR,
    NO_DECODER,
    describe_others,
    explain_no_decoder,
    get_ending_of_other,
    has_image_ending,
)
from fastcomus.images.found import ImageList, NoImages, Skipped, is_hidden, is_utf8

# Files by which folders that fastcomus fills are known, and a key of what they hold beside their seal.
_OWN_FILES = {"run.json": "config", "predictions.json": "windows"}


def find_images(root: Path) -> ImageList:
    """List every image file under `root` by its ending (`formats`, in upper or lower case). No file is opened.

    Links are followed. Each real folder and each linked file is listed once: under its real path if that lies inside
    the tree, else through the link that sorts first, so that loops end. Names that start with "." and `__MACOSX` are
    passed over, and so are run folders and what `predict` filled, whose masks and pages are no photographs. Other files
    are counted; those that look like pictures are skipped with a reason.

    Args:
        root: A folder, or one image file, which is then listed relative to its folder.

    Raises:
        InputError: `root` is missing or holds no image.
    """
    root = Path(root)
    shown = escape_invalid_utf8(str(root))
    others: Counter[str] = Counter()
    if os.path.isdir(root):
        walk = _Walk(os.path.realpath(root), has_image_ending)
        names, skipped, others = walk.names, walk.skipped, walk.others
        if walk.root_error:
            raise InputError(f"{shown} cannot be listed ({walk.root_error}); check its permissions.")
    elif os.path.isfile(root):
        if why := explain_no_decoder(root.name):
            raise InputError(f"{shown} cannot be read: {why}.")
        if not has_image_ending(root.name) or not is_utf8(root.name):
            raise InputError(f"{shown} is not an image file; give a folder or a file with {LOOKED_FOR}.")
        root, names, skipped = root.parent, [root.name], []
    else:
        if os.path.lexists(root):
            raise InputError(f"{shown} is neither a folder nor a file; give a folder of images.")
        raise InputError(f"{shown} does not exist{suggest_path(root) or '; give a folder of images.'}")
    skipped.sort(key=lambda one: one.image)
    if not names:
        first = f"{skipped[0].image} ({skipped[0].reason}: {skipped[0].detail})" if skipped else ""
        left_out = f"; {len(skipped)} left out, such as {first}" if skipped else ""
        other = f"; it holds {describe_others(others)}" if others else ""
        raise NoImages(f"{root} holds no image file: looked for {LOOKED_FOR} in it and its folders{left_out}{other}.")
    return ImageList(root, tuple(sorted(names)), tuple(skipped), others=others)


def find_files(root: Path, is_wanted: Callable[[str], bool]) -> tuple[list[str], list[Skipped]]:
    """List the files of a folder, to any depth, as `find_images` does.

    Args:
        root: The folder.
        is_wanted: Whether a file is listed, by its name without folders.

    Returns:
        The sorted names, and what was left out.
    """
    walk = _Walk(os.path.realpath(root), is_wanted)
    return sorted(walk.names), walk.skipped


class _Walk:
    """One pass over a tree: real folders first, then links to folders in sorted order, then links to files.

    Directory entries tell files, folders and links apart (`d_type`), so that only links cost a `stat`. Real files need
    no set of their own: one is listed if its real folder was visited and its name qualifies.
    """

    def __init__(self, real_root: str, is_wanted: Callable[[str], bool]) -> None:
        self._is_wanted = is_wanted
        self.names: list[str] = []
        self.skipped: list[Skipped] = []
        self.others: Counter[str] = Counter()
        self.root_error = ""
        self._visited: set[str] = set()
        self._folder_links: list[tuple[str, str]] = []  # a heap of (relative name, real path of the target)
        self._file_links: list[tuple[str, str]] = []
        self._walk_real_folders(real_root, "")
        while self._folder_links:
            name, target = heapq.heappop(self._folder_links)
            self._walk_real_folders(target, name + "/")
        linked: set[str] = set()
        for name, target in sorted(self._file_links):
            if target not in linked and not self._is_listed(target):
                linked.add(target)
                self.names.append(name)

    def _walk_real_folders(self, real_path: str, prefix: str) -> None:
        waiting = [(real_path, prefix)]
        while waiting:
            folder, prefix = waiting.pop()
            if folder in self._visited or (prefix and _is_own_folder(folder)):
                continue
            self._visited.add(folder)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = entry.name
                        if is_hidden(name):
                            continue
                        if entry.is_symlink():
                            self._take_link(entry.path, prefix + name)
                        elif entry.is_dir(follow_symlinks=False):
                            if self._accept_name(name, prefix + name):
                                waiting.append((entry.path, prefix + name + "/"))
                        elif self._is_wanted(name) and self._accept_name(name, prefix + name):
                            if entry.is_file(follow_symlinks=False):
                                self.names.append(prefix + name)
                            else:
                                self._skip(prefix + name, "not a regular file", "a pipe, socket or device")
                        elif not self._is_wanted(name) and entry.is_file(follow_symlinks=False):
                            self._count_other(prefix + name)
            except OSError as error:
                if not prefix:
                    self.root_error = error.strerror or str(error)
                self._skip(prefix.rstrip("/"), "unreadable folder", error.strerror or str(error))

    def _take_link(self, path: str, relative: str) -> None:
        name = os.path.basename(path)
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if self._is_wanted(name):
                self._skip(relative, "broken link", error.strerror or str(error))
            return
        if stat.S_ISREG(mode) and not self._is_wanted(name):
            self._count_other(relative)
            return
        if not (stat.S_ISDIR(mode) or self._is_wanted(name)) or not self._accept_name(name, relative):
            return
        if stat.S_ISDIR(mode):
            heapq.heappush(self._folder_links, (relative, os.path.realpath(path)))
        elif stat.S_ISREG(mode):
            self._file_links.append((relative, os.path.realpath(path)))
        else:
            self._skip(relative, "not a regular file", "a link to a pipe, socket or device")

    def _count_other(self, relative: str) -> None:
        name = relative.rpartition("/")[2]
        if ending := get_ending_of_other(name):
            self.others[escape_invalid_utf8(ending)] += 1
        if why := explain_no_decoder(name):
            self._skip(relative, NO_DECODER, why)

    def _accept_name(self, name: str, relative: str) -> bool:
        if is_utf8(name):
            return True
        self._skip(relative, "name is not valid UTF-8", "rename it to use it")
        return False

    def _skip(self, relative: str, reason: str, detail: str) -> None:
        self.skipped.append(Skipped(escape_invalid_utf8(relative), reason, detail))

    def _is_listed(self, real_path: str) -> bool:
        folder, name = os.path.split(real_path)
        return folder in self._visited and not is_hidden(name) and self._is_wanted(name) and is_utf8(name)


def _is_own_folder(folder: str) -> bool:
    """Tell whether a folder is one of a run, or of what `predict` wrote."""
    for name, key in _OWN_FILES.items():
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                found = json.load(file)
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and {key, "sha256"} <= found.keys():
            return True
    return False
