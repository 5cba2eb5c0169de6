"""Labels of many rows by a fitted clustering, block by block, on any engine; parts that are done are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastcomus.backends.interface import Backend
from fastcomus.clusters.assignment import Labeller
from fastcomus.clusters.labeller_files import FIT, read_labeller, write_labeller
from fastcomus.clusters.sampled import BLOCK_ROWS, LabelledRows, iterate_blocks, label_block
from fastcomus.errors import InputError
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import show_progress
from fastcomus.run.engines.choose import ThisProcess
from fastcomus.run.engines.work import Engine, Loaded, Stored
from fastcomus.store.row_blocks import ArrayRows, RowBlocks
from fastcomus.store.run_folder import RunFolder

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class LabelWork:
    """Labelling `rows` by what lies in fit/ of the run folder `root`, or by `labeller` in the process that made it."""

    root: Path
    rows: RowBlocks
    labeller: Labeller | None

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "rows": self.rows, "labeller": None}

    def load(self, backend: Backend, workers: int) -> Loaded[tuple[int, int], LabelledRows]:
        """See `engines.work.Work.load`."""
        labeller = self.labeller or read_labeller(RunFolder(self.root))

        def label_pieces(
            pieces: Sequence[tuple[int, int]], then: Callable[[LabelledRows], Stored], on_images: Callable[[int], None]
        ) -> Iterator[Stored]:
            for start, stop in pieces:
                made = label_block(self.rows, start, stop, labeller, backend, workers)
                on_images(made.images)
                yield then(made)

        return label_pieces


def label_rows(
    folder: RunFolder, stage: str, rows: RowBlocks, labeller: Labeller, engine: Engine, fingerprint: str
) -> Iterator[LabelledRows]:
    """Label all rows; every part is stored in the begun stage, so that a command that was killed goes on there.

    Args:
        folder: The run folder, whose lock is held.
        stage: Name of the stage's folder, which was begun; its parts are the caller's to remove.
        rows: The rows.
        labeller: Labels them.
        engine: Where the work is done; processes other than this one read rows and labeller from files.
        fingerprint: Of the stage.

    Yields:
        Labels of every block, in order.

    Raises:
        InputError: If a row is not finite, or the engine cannot be used or gave up.
    """
    if isinstance(engine, ThisProcess) and rows.count <= BLOCK_ROWS:
        yield label_block(rows, 0, rows.count, labeller, engine.get_backend(), engine.workers)
        return
    names = {piece: f"{stage}/part-{i:05d}.parquet" for i, piece in enumerate(iterate_blocks(rows.count))}
    missing = [piece for piece, name in names.items() if _read_part(folder, name, piece) is None]
    if missing and not isinstance(engine, ThisProcess):
        write_labeller(folder, labeller, fingerprint)

    def store(made: LabelledRows) -> None:
        table = {"cluster": made.labels, "distance": made.distances, "novelty": made.novelty}
        folder.write_table(names[made.start, made.stop], pa.table(table))

    if missing:
        work, done = LabelWork(folder.path.resolve(), rows, labeller), rows.count - sum(b - a for a, b in missing)
        with (
            show_progress("labels", rows.count, "objects", done) as advance,
            engine.stream_results(work, missing, store, advance) as stored,
        ):
            for _ in stored:
                reach_safe_point()
    for piece, name in names.items():
        part = _read_part(folder, name, piece)
        assert part is not None, name
        yield part
    folder.remove(FIT)


def check_rows(rows: RowBlocks, engine: Engine) -> None:
    """Raise InputError where an engine shares rows among processes that cannot read them."""
    if isinstance(rows, ArrayRows) and not isinstance(engine, ThisProcess):
        raise InputError("rows in memory are labelled in one process; give a file to share them among several.")


def _read_part(folder: RunFolder, name: str, piece: tuple[int, int]) -> LabelledRows | None:
    """Return the labels of a piece; None where they are not there, or damaged."""
    if not folder.resolve_file(name).exists():
        return None
    try:
        table = folder.read_table(name)
    except InputError:
        return None
    columns = [table[column].to_numpy() for column in ("cluster", "distance", "novelty")]
    return LabelledRows(*piece, *columns) if len(table) == piece[1] - piece[0] else None
