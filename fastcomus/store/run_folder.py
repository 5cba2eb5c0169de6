"""The folder of a run: its settings (run.json), and which of its stages are finished and up to date.

Each stage has a folder of its own (`objects`, `clusters`, `iteration-1`, ...). A stage ends by writing its manifest
(`manifest.json`), which holds a fingerprint: the stage's settings and a digest of its input. A stage is up to date if
its manifest holds the fingerprint that it would get today. Nothing depends on the clock, so that equal runs give equal
bytes. Files that were changed or cut since they were written are noticed when they are read (`integrity.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.errors import InputError, get_first_line
from fastcomus.store.folder import UNFINISHED, Folder, build_write_error
from fastcomus.store.integrity import Damaged, compute_file_digest, seal_json
from fastcomus.store.lock import LOCK_FILES
from fastcomus.store.sealed_json import read_json, read_sealed, unseal

Value = TypeVar("Value")
FORMAT = 3  # 2 knew no kept/, and is read


class RunFolder(Folder):
    """The files of one run. Methods that read raise InputError, with what to do, where a file is damaged."""

    def read_state(self) -> dict[str, Any] | None:
        """Read run.json.

        Returns:
            What it holds, or None for a folder where no run was started.

        Raises:
            InputError: The folder has another format version, or is not a run folder.
        """
        file = self.path / "run.json"
        try:
            if not file.exists():
                if self.path.exists() and (not self.path.is_dir() or any(_list_visible(self.path))):
                    raise InputError(
                        f"{self.path} exists and is not a run folder (it has no run.json); choose another --run."
                    )
                return None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be used ({error.strerror or error}); choose another --run."
            ) from error
        mending = "choose another --run, or delete the whole folder"
        state = read_json(file, mending)
        if state.get("format") not in (2, FORMAT):
            raise InputError(
                f"{self.path} was written in format {state.get('format')!r} and this fastcomus reads format {FORMAT}; "
                "choose another --run, or use the fastcomus that made it."
            )
        state = unseal(file, state, mending)
        if not isinstance(state.get("config"), dict) or not isinstance(state.get("images"), str):
            raise InputError(f"{file} lacks its settings; {mending}.")
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        """Write run.json with the format version and a digest of itself."""
        self.write_json("run.json", seal_json({"format": FORMAT, **state}))

    def read_manifest(self, stage: str) -> dict[str, Any] | None:
        """Return the manifest of a finished stage (`objects`, `clusters`, `iteration-1`, ...), or None."""
        file = self.path / stage / "manifest.json"
        return read_sealed(file) if file.exists() else None

    def is_current(self, stage: str, fingerprint: str) -> bool:
        """Whether `stage` was finished with this fingerprint."""
        manifest = self.read_manifest(stage)
        return manifest is not None and bool(manifest.get("fingerprint") == fingerprint)

    def begin(self, stage: str, fingerprint: str, kept: Collection[str] = ()) -> None:
        """Prepare the folder of `stage` to be computed.

        Files that an interrupted attempt with the same fingerprint left are kept, all others are removed.

        Args:
            stage: Name of the stage's folder.
            fingerprint: Digest of the stage's settings and input.
            kept: Names of files that stay in any case, because they say themselves what they were made from.
        """
        folder = self.path / stage
        started = folder / "started.json"
        try:
            self.writer.claim()
            (folder / "manifest.json").unlink(missing_ok=True)
            if folder.exists() and not (started.exists() and _is_same_start(started, fingerprint)):
                started.unlink(missing_ok=True)  # first: if this is interrupted, the rest must not look valid
                for entry in folder.iterdir():
                    if entry.name not in kept:
                        self.remove(f"{stage}/{entry.name}")
        except OSError as error:
            raise build_write_error(folder, error) from error
        self.write_json(f"{stage}/started.json", seal_json({"fingerprint": fingerprint}))

    def remove_unfinished(self, stage: str = "") -> None:
        """Remove what interrupted writers left at the top and, where it is given, in `stage`."""
        below = (self.path / stage).rglob(f"*{UNFINISHED}") if stage else ()
        for file in [*self.path.glob(f"*{UNFINISHED}"), *below]:
            self.remove(file.relative_to(self.path).as_posix())

    def finish(self, stage: str, fingerprint: str, **facts: Any) -> None:
        """Mark `stage` finished by atomically renaming started.json to manifest.json.

        Args:
            stage: Name of the stage's folder.
            fingerprint: Digest of the stage's settings and input.
            **facts: What else the manifest holds (JSON). Digests of the stage's tables and arrays are added.
        """
        self.remove_unfinished(stage)
        tables = sorted(path for ending in ("parquet", "npy") for path in (self.path / stage).glob(f"*.{ending}"))
        digests = {path.name: compute_file_digest(path) for path in tables if not path.name.startswith("part-")}
        if digests:
            facts["files"] = digests
        self.write_json(f"{stage}/started.json", seal_json({"fingerprint": fingerprint, **facts}))
        started, manifest = (self.path / stage / name for name in ("started.json", "manifest.json"))
        try:
            started.replace(manifest)
        except OSError as error:
            raise build_write_error(manifest, error) from error

    def replace_table(self, stage: str, name: str, table: pa.Table) -> None:
        """Write another table in the place of one of a finished stage, whose digest in the manifest follows.

        The manifest knows the table that was there as well: after a kill either may lie there.
        """
        with self.replace_file(f"{stage}/{name}") as path:
            pq.write_table(table, path, compression="zstd", write_page_checksum=True)
            manifest = self.read_manifest(stage) or {}
            files = dict(manifest.get("files", {}))
            before = {**manifest.get("before", {}), name: compute_file_digest(self.resolve_file(f"{stage}/{name}"))}
            files[name] = compute_file_digest(path)
            self.write_json(f"{stage}/manifest.json", seal_json({**manifest, "files": files, "before": before}))

    def read_table(
        self, name: str, columns: list[str] | None = None, digest: str = "", rows: tuple[int, int] | None = None
    ) -> pa.Table:
        """Read a Parquet file after checking its digest.

        Args:
            name: The file.
            columns: The columns to read; None reads all.
            digest: The SHA-256 (hex) that the file must have; by default the one in its stage's manifest.
            rows: The first row to read and the one after the last, at least one; only their row groups are read. None
                reads all.
        """
        self._check_digest(name, digest)

        def read(file: Path) -> pa.Table:
            # Not by read_table, which imports pyarrow.dataset, and pandas where that is installed.
            with pq.ParquetFile(file, page_checksum_verification=True) as opened:
                return opened.read(columns) if rows is None else _read_rows(opened, columns, *rows)

        return self.read_checked(name, read)

    def read_array(self, name: str) -> np.ndarray:
        """Read an .npy file after checking its digest."""
        self._check_digest(name)
        array: np.ndarray = self.read_checked(name, lambda file: np.load(file, allow_pickle=False))
        return array

    def read_checked(self, name: str, read: Callable[[Path], Value], problem: str = "cannot be read") -> Value:
        """Return `read(path)` of the file `name`; its errors become an InputError that says what to do.

        Args:
            name: The file.
            read: Reads it. OSError, ValueError, EOFError and Arrow's errors mean that the file is damaged.
            problem: What the error says of the file.
        """
        file = self.resolve_file(name)
        try:
            return read(file)
        except (OSError, ValueError, EOFError, pa.ArrowException) as error:
            raise InputError(f"{file} {problem} ({get_first_line(error)}); {self._suggest_mending(name)}.") from error

    def _check_digest(self, name: str, digest: str = "") -> None:
        """Raise InputError if the file `name` has not this digest, by default the one in its stage's manifest."""
        stage, _, rest = name.partition("/")
        manifest = (self.read_manifest(stage) or {}) if rest and not digest else {}
        wanted = {digest or manifest.get("files", {}).get(rest, ""), manifest.get("before", {}).get(rest, "")} - {""}

        def check(file: Path) -> None:
            if wanted and compute_file_digest(file) not in wanted:
                raise Damaged("it is not what was written")

        self.read_checked(name, check)

    def _suggest_mending(self, name: str) -> str:
        """What to do about the damaged file `name`. Parts of `objects` are made one by one, other stages whole."""
        if name.startswith("objects/part-"):
            return "delete it and run fastcomus embed again"
        return f"delete the folder {self.path / PurePosixPath(name).parts[0]} and run what made it again"


def _read_rows(opened: pq.ParquetFile, columns: list[str] | None, start: int, stop: int) -> pa.Table:
    ends = np.cumsum([opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)])
    first, last = np.searchsorted(ends, [start, stop - 1], side="right")
    begin = int(ends[first - 1]) if first else 0
    return opened.read_row_groups(range(first, last + 1), columns).slice(start - begin, stop - start)


def _list_visible(folder: Path) -> Iterator[Path]:
    names = (entry for entry in folder.iterdir() if not entry.name.endswith(UNFINISHED))
    return (entry for entry in names if entry.name not in LOCK_FILES)


def _is_same_start(started: Path, fingerprint: str) -> bool:
    try:
        return bool(json.loads(started.read_text(encoding="utf-8")).get("fingerprint") == fingerprint)
    except (OSError, ValueError, AttributeError):
        return False
