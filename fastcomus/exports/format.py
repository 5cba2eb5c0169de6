"""The parts that every export format consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcomus.store.run_folder import RunFolder


@dataclass(frozen=True)
class ExportFormat:
    """An export format, as functions that write to the folder of the export.

    Attributes:
        places: Chooses for the names of images where each lies in the export: relative POSIX paths, each once.
        write_image: Of (folder, place, labels, classes): writes the files of an image, of which labels (H, W) lie in
            [0, C] and classes are C + 1 names, background first. Returns what the index needs. Called by several
            threads.
        write_index: Of (folder, places, entries, classes): writes the files that there is one of, from all that
            `write_image` returned.
        most_classes: Number of classes that the format can hold, without background.
        needs_outlines: Whether scikit-image is needed.
        takes_images: Whether the images are part of the export.
    """

    places: Callable[[Sequence[str]], Mapping[str, str]]
    write_image: Callable[[RunFolder, str, np.ndarray, tuple[str, ...]], Any]
    write_index: Callable[[RunFolder, Sequence[str], Sequence[Any], tuple[str, ...]], None]
    most_classes: int
    needs_outlines: bool
    takes_images: bool = True
