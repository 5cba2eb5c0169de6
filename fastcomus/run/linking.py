"""Neighbours of many rows among fixed ones, block by block, on any engine; parts that are done are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastcomus.backends.interface import Backend
from fastcomus.clusters.assignment import Linker
from fastcomus.clusters.linker_files import FIT, read_linker, write_linker
from fastcomus.clusters.sampled import BLOCK_ROWS, LinkedRows, iterate_blocks, link_block
from fastcomus.errors import InputError
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import show_progress
from fastcomus.run.engines.choose import ThisProcess
from fastcomus.run.engines.work import Engine, Loaded, Stored
from fastcomus.store.columns import make_column, read_column
from fastcomus.store.row_blocks import ArrayRows, RowBlocks
from fastcomus.store.run_folder import RunFolder

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class LinkWork:
    """Linking `rows` by what lies in fit/ of the run folder `root`, or by `linker` in the process that made it."""

    root: Path
    rows: RowBlocks
    linker: Linker | None

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "rows": self.rows, "linker": None}

    def load(self, backend: Backend, workers: int) -> Loaded[tuple[int, int], LinkedRows]:
        """See `engines.work.Work.load`."""
        linker = self.linker or read_linker(RunFolder(self.root))

        def link_pieces(
            pieces: Sequence[tuple[int, int]], then: Callable[[LinkedRows], Stored], on_images: Callable[[int], None]
        ) -> Iterator[Stored]:
            for start, stop in pieces:
                made = link_block(self.rows, start, stop, linker, backend, workers)
                on_images(made.images)
                yield then(made)

        return link_pieces


@dataclass(frozen=True)
class StoredLinks:
    """Links of all rows in a run folder, which are read block by block, in order, as often as they are iterated."""

    folder: RunFolder
    names: dict[tuple[int, int], str]

    def __iter__(self) -> Iterator[LinkedRows]:
        """Yield every block."""
        for piece, name in self.names.items():
            part = _read_part(self.folder, name, piece)
            assert part is not None, name
            yield part


def link_rows(
    folder: RunFolder, stage: str, rows: RowBlocks, linker: Linker, engine: Engine, fingerprint: str
) -> Sequence[LinkedRows] | StoredLinks:
    """Link all rows. Every part is stored, so that a command that was killed goes on there, and kept for the next one.

    Args:
        folder: The run folder, whose lock is held.
        stage: Name of the stage's folder, where rows are many.
        rows: The rows.
        linker: Finds their neighbours.
        engine: Where the work is done; processes other than this one read rows and linker from files.
        fingerprint: Of all that the links depend on.

    Returns:
        The links of every block, in order.

    Raises:
        InputError: If a row is not finite, or the engine cannot be used or gave up.
    """
    if isinstance(engine, ThisProcess) and rows.count <= BLOCK_ROWS:
        return [link_block(rows, 0, rows.count, linker, engine.get_backend(), engine.workers)]
    names = {piece: f"{stage}/part-{i:05d}.parquet" for i, piece in enumerate(iterate_blocks(rows.count))}
    is_current = folder.is_current(stage, fingerprint)
    if not is_current:
        folder.begin(stage, fingerprint)
    missing = [piece for piece, name in names.items() if _read_part(folder, name, piece) is None]
    if is_current and not missing:
        log.info("%s: kept from before", stage)
        return StoredLinks(folder, names)
    if missing and not isinstance(engine, ThisProcess):
        write_linker(folder, linker, fingerprint)

    def store(made: LinkedRows) -> None:
        near = pa.FixedSizeListArray.from_arrays(make_column(made.near.ravel()), linker.count)
        folder.write_table(names[made.start, made.stop], pa.table({"near": near, "novelty": make_column(made.novelty)}))

    if missing:
        work, done = LinkWork(folder.path.resolve(), rows, linker), rows.count - sum(b - a for a, b in missing)
        with (
            show_progress("neighbours", rows.count, "objects", done) as advance,
            engine.stream_results(work, missing, store, advance) as stored,
        ):
            for _ in stored:
                reach_safe_point()
    folder.remove(FIT)
    if not is_current:
        folder.finish(stage, fingerprint)
    return StoredLinks(folder, names)


def check_rows(rows: RowBlocks, engine: Engine) -> None:
    """Raise InputError where an engine shares rows among processes that cannot read them."""
    if isinstance(rows, ArrayRows) and not isinstance(engine, ThisProcess):
        raise InputError("rows in memory are labelled in one process; give a file to share them among several.")


def _read_part(folder: RunFolder, name: str, piece: tuple[int, int]) -> LinkedRows | None:
    """Return the links of a piece; None where they are not there, or damaged."""
    if not folder.resolve_file(name).exists():
        return None
    try:
        table = folder.read_table(name).combine_chunks()
    except InputError:
        return None
    if len(table) != piece[1] - piece[0]:
        return None
    near = np.from_dlpack(table["near"].combine_chunks().flatten()).reshape(len(table), -1)
    return LinkedRows(*piece, near, read_column(table["novelty"]))
