"""Rows that the benchmarks cluster: planted ones of any size, or embeddings from files."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastcomus.embeddings import checked_embeddings, read_embeddings


def planted(file: Path, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows (size, D), their classes (size,) and the number of classes, by `planted` and `SEPARATION` of `file`.

    Sizes without a separation of their own are as hard as the nearest that has one.
    """
    spec = importlib.util.spec_from_file_location("planted", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    nearest = min(module.SEPARATION, key=lambda known: abs(np.log(known[0] / size)))
    k = nearest[1]
    return *module.planted(size, k, module.SEPARATION[nearest], seed=seed), k


def embeddings(files: Sequence[Path]) -> np.ndarray:
    """Rows (N, D) of .npy files, or of Parquet files with a column embedding (a run's objects/part-*.parquet)."""
    return checked_embeddings(np.concatenate([read_embeddings(file)[0] for file in files]))
