"""The folder that `predict` fills, and predictions.json in it, which says what its masks were made from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fastcomus.errors import InputError
from fastcomus.images.found import LOST, ImageList, Skipped
from fastcomus.images.roots import describe_root
from fastcomus.images.stamps import stamp_images
from fastcomus.segmentation.predicted_files import list_prediction_files
from fastcomus.store.integrity import seal_json
from fastcomus.store.masks import get_mask_file_name
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint, read_sealed

log = logging.getLogger("fastcomus")


class PredictedFolder:
    """The masks that `predict` writes, in windows of images that share batches of the network.

    predictions.json holds the settings, the names of classes where clusters have names, the skipped images, and a
    fingerprint of every window, which changes with its images and with the settings.

    Attributes:
        windows: The names of the images, window by window.
        skipped: The images that could not be read, by name.
    """

    def __init__(
        self, folder: RunFolder, found: ImageList, settings: Mapping[str, Any], classes: Mapping[str, Any]
    ) -> None:
        from fastcomus.segmentation.prediction import WINDOW  # once the images are known to be there: it loads torch

        self._folder, self._found = folder, found
        self._settings, self._classes = settings, classes
        names, stamps = found.names, stamp_images(found, found.names, None)
        self.windows = [names[start : start + WINDOW] for start in range(0, len(names), WINDOW)]
        self._marks = [
            compute_fingerprint(settings=settings, stamps=stamps[start : start + WINDOW])
            for start in range(0, len(names), WINDOW)
        ]
        # A killed writer may have left this one; unfinished masks are overwritten later.
        folder.locate_unfinished("predictions.json").unlink(missing_ok=True)
        self._state = _read_state(folder)
        root = describe_root(found.root)
        self._is_other_root = root not in self._state.get("images", [root])  # which versions before did not write
        self._roots = sorted({*self._state.get("images", []), root})
        self._known = frozenset(self._state.get("windows", []))
        known = {name for window, mark in self._pair_marks() if mark in self._known for name in window}
        rows = [row for row in self._state.get("skipped", []) if row["image"] in known and row["reason"] != LOST]
        self.skipped = {row["image"]: Skipped(**row) for row in rows}

    def drop_stale(self) -> None:
        """Remove the files of every changed window, after removing its fingerprint from predictions.json."""
        stale = [window for window, mark in self._pair_marks() if mark not in self._known]
        if not stale:
            return
        masks = [get_mask_file_name(name) for window in stale for name in window] if self._is_other_root else []
        if replaced := [name for name in masks if self._folder.resolve_file(name).exists()]:
            told = "predict: masks of images in %s, such as %s (%d in all), make way for those of the same names"
            log.warning(told, " and ".join(self._state["images"]), replaced[0], len(replaced))
        self._write_state(mark for mark in self._marks if mark in self._known)
        for name in (name for window in stale for name in window):
            for file in list_prediction_files(name, True, True):
                self._folder.resolve_file(file).unlink(missing_ok=True)
        self.remember()

    def find_done(self, overlay: bool, probabilities: bool) -> set[str]:
        """Return the images that were skipped or whose files all exist and are not empty.

        Args:
            overlay: Whether an overlay is needed.
            probabilities: Whether probabilities are needed.
        """
        return {
            name
            for name in self._found.names
            if name in self.skipped
            or all(self._has_content(file) for file in list_prediction_files(name, overlay, probabilities))
        }

    def _has_content(self, name: str) -> bool:
        file = self._folder.resolve_file(name)
        return file.exists() and file.stat().st_size > 0

    def count_masks_of_other_networks(self) -> int:
        """Count the masks that an earlier network made of images other than these, and that stay."""
        if self._state.get("network", self._settings["network"]) == self._settings["network"]:
            return 0
        own = {get_mask_file_name(name) for name in self._found.names}
        masks = (file.relative_to(self._folder.path).as_posix() for file in self._folder.path.rglob("*.png"))
        return sum(name not in own for name in masks)

    def has_other_classes(self) -> bool:
        """Return whether the names of the classes differ from those in predictions.json."""
        return bool(self._state.get("classes") != self._classes.get("classes"))

    def remember(self) -> None:
        """Write predictions.json with all windows, unless it is up to date."""
        self._write_state(self._marks)

    def _pair_marks(self) -> Iterable[tuple[tuple[str, ...], str]]:
        return zip(self.windows, self._marks, strict=True)

    def _write_state(self, marks: Iterable[str]) -> None:
        rows = sorted([*self.skipped.values(), *self._found.skipped], key=lambda one: one.image)
        skipped = [asdict(one) for one in rows]
        state = {**self._settings, "images": self._roots, "windows": list(marks), "skipped": skipped, **self._classes}
        if not self._folder.path.exists() or state != self._state:
            self._folder.write_json("predictions.json", seal_json(state))


def check_target(folder: RunFolder) -> None:
    """Raise InputError where a folder that `predict` is to fill holds something else, such as its own images."""
    place = folder.path
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; choose a new folder for --output.")
    holds_anything = place.is_dir() and any(not one.name.startswith(".") for one in place.iterdir())
    if holds_anything and not folder.resolve_file("predictions.json").exists():
        raise InputError(f"{place} is there already and holds no masks of predict; choose a new --output.")


def _read_state(folder: RunFolder) -> dict[str, Any]:
    """Return predictions.json of an earlier `predict`, or {}."""
    file = folder.path / "predictions.json"
    return read_sealed(file, "delete it, and all masks are made again") if file.exists() else {}
