"""fastcomus: unlabelled photographs in, object clusters, masks and a trained segmentation network out.

What stands in `__all__` is public; everything else is private and may move.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastcomus.errors import InputError

# OpenMP reads it when the first library that uses it is loaded, so for Python callers it holds where fastcomus comes
# before torch and scikit-learn. Threads that spin while they wait would take the time of those they wait for where
# other processes are busy: k-means took 25 times as long beside one. Threads that never spin are woken by the system at
# each of thousands of small steps: eigenvectors of small matrices took five times as long. So they spin for about a
# microsecond.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # of GCC's library, which those of Python's packages are
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # the same for NumPy's BLAS: 2^16 turns, not 2^26

if TYPE_CHECKING:
    from fastcomus.clusters.estimator import SpectralClusterer
    from fastcomus.clusters.labels import Clusters
    from fastcomus.run.cluster import cluster_rows as cluster
    from fastcomus.run.run import Run

__version__ = "0.2.0.dev0"
__all__ = ["Clusters", "InputError", "Run", "SpectralClusterer", "__version__", "cluster"]

_HOMES = {
    "Clusters": ("fastcomus.clusters.labels", "Clusters"),
    "Run": ("fastcomus.run.run", "Run"),
    "SpectralClusterer": ("fastcomus.clusters.estimator", "SpectralClusterer"),
    "cluster": ("fastcomus.run.cluster", "cluster_rows"),
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import fastcomus` and `--help` stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fastcomus' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
