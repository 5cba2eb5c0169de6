"""Rows that are read block by block and never held whole: of an array, of a file, or of the parts of `objects/`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from fastcomus.errors import InputError
from fastcomus.store.embeddings import build_missing_error, check_embeddings, extract_embeddings
from fastcomus.store.run_folder import RunFolder


class RowBlocks(Protocol):
    """Rows, (N, D)."""

    @property
    def count(self) -> int:
        """N."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) as float32, checked; raise InputError where they are not finite numbers."""


@dataclass(frozen=True)
class ArrayRows:
    """Rows of an array (N, D), in memory or mapped from a file, of any kind of number."""

    rows: np.ndarray

    @property
    def count(self) -> int:
        """See `RowBlocks`."""
        return len(self.rows)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `RowBlocks`."""
        return check_embeddings(self.rows[start:stop])


@dataclass(frozen=True)
class NpyRows:
    """Rows of an .npy file, which every process reads for itself: pages of a mapped file would count as its memory."""

    file: Path

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}  # not what is mapped

    @cached_property
    def _mapped(self) -> np.ndarray:
        rows: np.ndarray = np.load(self.file, mmap_mode="r", allow_pickle=False)
        if rows.ndim != 2:
            raise InputError(f"{self.file} must hold rows of shape (N, D); got shape {rows.shape}.")
        return rows

    @property
    def count(self) -> int:
        """See `RowBlocks`."""
        return len(self._mapped)

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `RowBlocks`."""
        mapped = self._mapped
        if not mapped.flags.c_contiguous or not isinstance(mapped, np.memmap):
            return check_embeddings(mapped[start:stop])
        width, offset = mapped.shape[1], mapped.offset + start * mapped.strides[0]
        block = np.fromfile(self.file, mapped.dtype, (stop - start) * width, offset=offset)
        return check_embeddings(block.reshape(-1, width))


@dataclass(frozen=True)
class ParquetRows:
    """Rows of the column `embedding` of Parquet files, one after the other.

    `files`: their names in `folder`. `digests`: their SHA-256 (hex), "" where it is not known. `ends`: the number of
    rows up to the end of each.
    """

    folder: Path
    files: tuple[str, ...]
    digests: tuple[str, ...]
    ends: tuple[int, ...]

    @property
    def count(self) -> int:
        """See `RowBlocks`."""
        return self.ends[-1] if self.ends else 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """See `RowBlocks`."""
        first, last = np.searchsorted(self.ends, [start, stop - 1], side="right")
        found = []
        for number in range(first, last + 1):
            begin = self.ends[number - 1] if number else 0
            wanted = max(start - begin, 0), min(stop, self.ends[number]) - begin
            if wanted[0] < wanted[1]:
                folder, file = RunFolder(self.folder), self.files[number]
                found.append(extract_embeddings(folder.read_table(file, ["embedding"], self.digests[number], wanted)))
        if len({one.shape[1] for one in found}) > 1:
            raise InputError("every row of the column embedding must hold the same number of values.")
        return check_embeddings(np.concatenate(found))


def open_object_rows(folder: RunFolder) -> ParquetRows:
    """Open the embeddings of the objects of a run; raise InputError where there are none or a part is damaged."""
    manifest = folder.read_manifest("objects")
    if manifest is None:
        raise InputError(f"there are no objects in {folder.path}; run fastcomus embed FOLDER first.")
    names = tuple(f"objects/{name}" for name in manifest["parts"])
    sizes = [folder.read_checked(name, pq.read_metadata).num_rows for name in names]
    return ParquetRows(
        folder.path.resolve(), names, tuple(manifest["parts"].values()), tuple(np.cumsum(sizes).tolist())
    )


def open_rows(source: Any) -> RowBlocks:
    """Open rows that `store.embeddings.read_embeddings` would read whole; of Parquet a block reads its row groups.

    Raises:
        InputError: The file cannot be read.
    """
    if not isinstance(source, Path | str):
        return ArrayRows(check_embeddings(source))
    file = Path(source).resolve()
    try:
        if file.suffix.lower() == ".npy":
            rows = NpyRows(file)
            assert rows.count >= 0
            return rows
        return ParquetRows(file.parent, (file.name,), ("",), (pq.read_metadata(file).num_rows,))
    except FileNotFoundError as error:
        raise build_missing_error(file) from error
    except (OSError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is neither an .npy file nor Parquet that can be read ({error}).") from error
