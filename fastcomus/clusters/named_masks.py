"""The masks of an iteration of a run, as class maps under the names of the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcomus.clusters.names import ClusterNames
from fastcomus.store.masks import get_mask_path, read_class_map
from fastcomus.store.run_folder import RunFolder


@dataclass(frozen=True)
class ClassMaps:
    """The class maps of one iteration.

    Attributes:
        folder: The run folder.
        iteration: Number of the iteration; 0 are the pseudo-masks.
        images: Names of the images, each of which may have a map.
        names: The classes that the clusters make.
        workers: Number of threads that read maps.
    """

    folder: RunFolder
    iteration: int
    images: Sequence[str]
    names: ClusterNames
    workers: int

    @property
    def k(self) -> int:
        """Number of classes without the background."""
        return len(self.names.classes) - 1

    def read(self, image: str) -> np.ndarray:
        """Read the map of an image, (H, W) unsigned integers in [0, k]."""
        return self.names.map_to_classes(read_class_map(self.folder, self._locate_mask(image)))

    def select_present(self, names: Sequence[str]) -> list[str]:
        """Return the images among `names` that have a map."""
        return [name for name in names if self.folder.resolve_file(self._locate_mask(name)).exists()]

    def _locate_mask(self, image: str) -> str:
        return get_mask_path(f"iteration-{self.iteration}", image)
