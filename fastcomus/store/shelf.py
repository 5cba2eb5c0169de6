"""Clusters put aside with all that was made of them, and found again.

They lie in kept/ID, where ID is the start of their fingerprint, laid out as in the run folder itself. A folder is moved
by renaming what it holds, entry by entry; names with an ending say which way an interrupted move was going.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastcomus.errors import InputError, suggest_names
from fastcomus.store.corrections import CORRECTIONS_FILE
from fastcomus.store.folder import build_write_error
from fastcomus.store.run_folder import RunFolder

KEPT = "kept"
_LEAVING, _RETURNING = ".leaving", ".returning"
_MADE_OF_CLUSTERS = (
    *("clusters", "names.toml", CORRECTIONS_FILE, "iteration-*", "evaluation", "exports", "report", "tensorboard"),
)


def make_id(fingerprint: str) -> str:
    """Return the name under which clusters are kept, from their fingerprint."""
    return fingerprint[:12]


def list_made_of_clusters(folder: RunFolder) -> list[Path]:
    """List the clusters of a run folder and what was made of them: the files and folders that are moved together."""
    return [entry for pattern in _MADE_OF_CLUSTERS for entry in folder.path.glob(pattern)]


def list_kept(folder: RunFolder) -> dict[str, RunFolder]:
    """List the clusters that are put aside: their id, and the folder kept/ID as a run folder of its own."""
    places = sorted((folder.path / KEPT).glob("*"))
    return {place.name: RunFolder(place) for place in places if place.is_dir() and not place.suffix}


def count_steps(folder: RunFolder) -> int:
    """Return the number of the last step of corrections, of the present clusters or of some that were put aside."""
    last = 0
    for file in (folder.path / CORRECTIONS_FILE, *(folder.path / KEPT).glob(f"*/{CORRECTIONS_FILE}")):
        with suppress(OSError, ValueError):  # what is damaged is told where it is read
            last = max(last, pc.max(pq.read_table(file, columns=["step"])["step"]).as_py() or 0)
    return last


def exchange(folder: RunFolder, fingerprint: str) -> bool:
    """Put the present clusters aside and bring those with `fingerprint` back, if they were put aside earlier.

    Args:
        folder: The run folder.
        fingerprint: Of the clusters that are wanted; not those that are there.

    Returns:
        Whether they are there now.
    """
    folder.writer.claim()
    finish_moves(folder)
    present, wanted = folder.read_manifest("clusters"), make_id(fingerprint)
    if present is not None:
        leaving = make_id(present["fingerprint"])
        folder.remove(f"{KEPT}/{leaving}")
        _make_folder(folder.path / KEPT / f"{leaving}{_LEAVING}")
        finish_moves(folder)
    kept = list_kept(folder).get(wanted)
    if kept is None or not kept.is_current("clusters", fingerprint):
        return False
    for entry in list_made_of_clusters(folder):  # what an interrupted command left
        folder.remove(entry.name)
    _move(kept.path, kept.path.with_name(f"{wanted}{_RETURNING}"))
    finish_moves(folder)
    return True


def finish_moves(folder: RunFolder) -> None:
    """Finish moves that were interrupted, if there are any; then the lock of the folder is taken."""
    if any(place.suffix for place in (folder.path / KEPT).glob("*")):
        folder.writer.claim()
    for leaving in (folder.path / KEPT).glob(f"*{_LEAVING}"):
        for entry in list_made_of_clusters(folder):
            _move(entry, leaving / entry.name)
        _move(leaving, leaving.with_suffix(""))
    for returning in (folder.path / KEPT).glob(f"*{_RETURNING}"):
        for entry in returning.iterdir():
            _move(entry, folder.path / entry.name)
        returning.rmdir()
        folder.written += 1


def find_kept(folder: RunFolder, wanted: str) -> RunFolder:
    """Find clusters that were put aside by their id, or the start of it.

    Raises:
        InputError: If none or several match.
    """
    kept = list_kept(folder)
    matching = [name for name in kept if wanted and name.startswith(wanted)]
    if len(matching) != 1:
        what = "several" if matching else "no"
        raise InputError(
            f"{what} clusters are kept under {wanted!r} in {folder.path}{suggest_names(wanted, kept)} See what "
            "fastcomus history lists."
        )
    return kept[matching[0]]


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise build_write_error(path, error) from error


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise build_write_error(target, error) from error
