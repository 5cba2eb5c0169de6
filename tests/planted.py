"""Planted embeddings: the project's reference of DINO-like rows where it is at hand, and plain Gaussian classes."""

from __future__ import annotations

import importlib.util

import numpy as np
from places import REFERENCE

PLANTED = REFERENCE / "planted.py"


def dino_like(n: int, k: int, separation: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 384) float32 of unit length in k unbalanced, overlapping classes, and the classes (n,)."""
    spec = importlib.util.spec_from_file_location("planted_reference", PLANTED)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.planted(n, k, separation, seed)


def gaussian(n: int = 300, k: int = 5, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 12) float32 around k centres, and the classes (n,)."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % k
    return (3 * rng.normal(size=(k, 12))[classes] + spread * rng.normal(size=(n, 12))).astype(np.float32), classes
