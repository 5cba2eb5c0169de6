"""What every export format consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcomus.store.run_folder import RunFolder


@dataclass(frozen=True)
class ExportFormat:
    """One format, as functions on the export's folder.

    `places`: names of the run's images -> where each lies in the export, relative POSIX paths, each once.
    `write_image(folder, place, labels, classes)`: writes what the format keeps by image, (H, W) labels in [0, C] of
        `classes` (C + 1 names, background first), and returns what the index needs. Called by several threads.
    `write_index(folder, places, entries, classes)`: writes what comes once, from all that `write_image` returned.
    `most_classes`: background apart. `needs_outlines`: whether scikit-image is needed.
    """

    places: Callable[[Sequence[str]], Mapping[str, str]]
    write_image: Callable[[RunFolder, str, np.ndarray, tuple[str, ...]], Any]
    write_index: Callable[[RunFolder, Sequence[str], Sequence[Any], tuple[str, ...]], None]
    most_classes: int
    needs_outlines: bool
