"""The class maps of a run folder's iteration, with the classes that the names of clusters make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.clusters.names import ClusterNames
from fastcomus.store.masks import get_mask_path, read_class_map
from fastcomus.store.run_folder import RunFolder


@dataclass(frozen=True)
class ClassMaps:
    """The class maps of one iteration: `images` may have one each, of the classes that `names` makes of clusters."""

    folder: RunFolder
    iteration: int
    images: Sequence[str]
    names: ClusterNames
    backend: Backend
    workers: int

    @property
    def k(self) -> int:
        """Number of classes, background apart."""
        return len(self.names.classes) - 1

    def read(self, image: str) -> np.ndarray:
        """(H, W) unsigned integers in [0, k]."""
        return self.names.map_to_classes(read_class_map(self.folder, self._locate_mask(image)))

    def select_present(self, names: Sequence[str]) -> list[str]:
        """Those of `names` whose class map is there."""
        return [name for name in names if self.folder.resolve_file(self._locate_mask(name)).exists()]

    def _locate_mask(self, image: str) -> str:
        return get_mask_path(f"iteration-{self.iteration}", image)
