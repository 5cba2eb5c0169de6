"""fastcomus: unlabelled photographs in, object clusters, masks and a trained segmentation network out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastcomus.errors import InputError

if TYPE_CHECKING:
    from fastcomus.clusters.labels import Clusters
    from fastcomus.run.run import Run, cluster

__version__ = "0.1.0"
__all__ = ["Clusters", "InputError", "Run", "__version__", "cluster"]

_HOME = {"Run": "fastcomus.run.run", "cluster": "fastcomus.run.run", "Clusters": "fastcomus.clusters.labels"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import fastcomus` and `--help` stay quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'fastcomus' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
