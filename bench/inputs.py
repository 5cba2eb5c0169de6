"""Rows that the benchmarks cluster: planted ones of any size, or embeddings from files."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fastcomus.store.embeddings import check_embeddings, read_embeddings


def make_planted_rows(file: Path, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Planted rows (size, D), their classes (size,) and the number of classes, by `SEPARATION` of `file`.

    Sizes without a separation of their own are as hard as the nearest that has one.
    """
    spec = importlib.util.spec_from_file_location("planted", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    nearest = min(module.SEPARATION, key=lambda known: abs(np.log(known[0] / size)))
    k = nearest[1]
    return *module.planted(size, k, module.SEPARATION[nearest], seed=seed), k


def load_rows(files: Sequence[Path]) -> np.ndarray:
    """Rows (N, D) of .npy files, or of Parquet files with a column embedding (a run's objects/part-*.parquet)."""
    return check_embeddings(np.concatenate([read_embeddings(file)[0] for file in files]))


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is clustered, where and for how long at most."""
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1500, 11_000], help="numbers of planted rows")
    parser.add_argument("--embeddings", type=Path, help=".npy (N, D) instead of planted rows")
    parser.add_argument("--k", type=int, default=0, help="number of clusters of --embeddings")
    parser.add_argument("--seeds", type=int, default=1, help="planted sets per size, and seeds of what is random")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a side is given up")
    parser.add_argument("--one-side", help=argparse.SUPPRESS)  # in a process of its own


def resolve_limits(arguments: argparse.Namespace) -> tuple[int, float]:
    return arguments.threads, arguments.limit


def iterate_inputs(arguments: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, str, str, int, int]]:
    """(name, file of rows, file of classes, k, seed) of every input of `add_options`; files go when the next comes."""
    if arguments.embeddings:
        for seed in range(arguments.seeds):
            yield arguments.embeddings.name, str(arguments.embeddings), "", arguments.k, seed
        return
    for size in arguments.sizes:
        for seed in range(arguments.seeds):
            rows, classes, k = make_planted_rows(arguments.planted, size, seed)
            files = [scratch / f"{kind}-{size}-{seed}.npy" for kind in ("rows", "classes")]
            for file, array in zip(files, (rows, classes), strict=True):
                np.save(file, array)
            del rows
            yield f"planted {size:,}, k {k}", str(files[0]), str(files[1]), k, seed
            for file in files:
                file.unlink()
