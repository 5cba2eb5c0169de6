"""The class maps of a run folder's iteration, with the classes that the names of clusters make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastcomus.backends import Backend
from fastcomus.cluster_names import ClusterNames
from fastcomus.run_folder import RunFolder, mask_name


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
        return self.names.class_map(self.folder.read_class_map(self._name(image)))

    def present(self, names: Sequence[str]) -> list[str]:
        """Those of `names` whose class map is there."""
        return [name for name in names if self.folder.file(self._name(name)).exists()]

    def _name(self, image: str) -> str:
        return mask_name(f"iteration-{self.iteration}", image)
