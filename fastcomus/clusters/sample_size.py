"""On how many rows clusters are fitted: on so many as asked for, or as memory bears."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fastcomus.config import ClusterConfig
from fastcomus.errors import InputError

log = logging.getLogger("fastcomus")

_GRAPH_BYTES, _BYTES_PER_MAP = 5_600, 33  # of a whole fit, for each row and eigenvector (docs/scale.md)
_BEARABLE = 0.8  # of the memory
_STEP = 100_000  # to which a sample is rounded that memory bounds


def step_up(count: int) -> int:
    """Return how many eigenmaps are computed where `count` are wanted: the next of 16, 24, 32, 48, 64, 96, 128, ..."""
    step = 16
    while step < count:
        step = step * 3 // 2 if step & (step - 1) == 0 else step * 4 // 3
    return step


def choose_sample_size(config: ClusterConfig, rows: int, memory_bytes: int | None = None) -> int:
    """Choose on how many rows to fit: `fit_on`, or for 0 as many as memory bears.

    Args:
        config: Has `fit_on`, `k` and `method`.
        rows: N.
        memory_bytes: Of this machine, or None to look.

    Returns:
        A number in [2, N]; N fits on all.

    Raises:
        InputError: If `fit_on` does not suit N or k.
    """
    if config.fit_on > rows:
        raise InputError(f"--fit-on must be at most the number of objects; got {config.fit_on} with N={rows}.")
    if config.fit_on and config.fit_on < config.k:
        raise InputError(f"--fit-on must be at least the number of clusters; got {config.fit_on} with k={config.k}.")
    if config.fit_on:
        return config.fit_on
    each = _GRAPH_BYTES + _BYTES_PER_MAP * step_up(config.n_components or config.k or config.max_k)
    most = int(_BEARABLE * (memory_bytes or measure_memory()) / each)
    if rows <= most:
        return rows
    most = max(most // _STEP * _STEP, min(rows, 2 * _STEP))
    log.info(
        "cluster: fitted on %d of %d objects, since all would take about %.0f GB; --fit-on sets another number",
        min(most, rows),
        rows,
        rows * each / 1e9,
    )
    return min(most, rows)


def measure_memory() -> int:
    """Return how many bytes of memory this process may use: the machine's, or what its control group allows."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**33]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return min(found)
