"""Images in Parquet tables, as Hugging Face datasets keep them, and in Lance tables: read by row from where they lie.

The column is a struct with the field `bytes` (and `path`), as `datasets` writes, or binary; the first such one counts.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.errors import InputError, get_first_line
from fastcomus.images.formats import has_image_ending
from fastcomus.images.found import LOST, ImageList, Skipped, UnreadableImage
from fastcomus.images.lance_tables import (
    LANCE_ENDING,
    get_lance_state,
    is_lance_table,
    iterate_lance_values,
    read_lance_value,
)
from fastcomus.images.roots import StoredImage, StoredImages

ENDING = ".parquet"
_ENDING_OF = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"RIFF", ".webp"))
_GROUPS_HELD = 4  # row groups in memory, in each process
_LAYOUTS_HELD = 256  # tables whose footers are


@dataclass(frozen=True)
class ImageTables(StoredImages):
    """Images in tables, named TABLE/ROW.ENDING.

    Attributes:
        address: What the user gave: a table, or a folder of tables.
        folder: The folder that the tables are in.
    """

    address: str
    folder: str

    def __truediv__(self, name: str) -> StoredImage:
        table, _, row = name.rpartition("/")
        return _Row(Path(self.folder, table), int(PurePosixPath(row).stem))

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class _Row(StoredImage):
    file: Path
    row: int

    def read_encoded(self, most_bytes: int) -> bytes:
        content = _read_bytes(self.file, self.row)
        if len(content) > most_bytes:
            raise UnreadableImage(
                "too large", f"{len(content)} bytes; {most_bytes} are the most that max_pixels may take"
            )
        return content

    def __str__(self) -> str:
        return f"{self.file}/{self.row:08d}"


def is_table(path: str) -> bool:
    """Whether a file is taken for a table of images by its ending."""
    return path.lower().endswith(ENDING)


def is_in_table(name: str) -> bool:
    """Whether the name of an image says that it lies in a table."""
    return any(is_table(part) or part.lower().endswith(LANCE_ENDING) for part in name.split("/")[:-1])


def find_in_tables(address: str, folder: Path, tables: list[str]) -> ImageList:
    """List the images in tables.

    Args:
        address: What the user gave.
        folder: Where the tables are.
        tables: Their names in it.

    Returns:
        An image per row; rows without one are skipped.

    Raises:
        InputError: A table cannot be read or has no column of images, or there is no image.
    """
    names: list[str] = []
    skipped: list[Skipped] = []
    stamps: dict[str, Any] = {}
    for table in tables:
        file = folder / table
        state = _get_state(file)
        for row, ending in enumerate(_list_endings(file)):
            name = f"{table}/{row:08d}{ending}"
            if ending:
                names.append(name)
                stamps[name] = [*state, row]
            else:
                skipped.append(Skipped(name, "empty file", "the row has no image"))
    if not names:
        raise InputError(f"{address} has no row with an image.")
    return ImageList(ImageTables(address, str(folder)), tuple(sorted(names)), tuple(skipped), stamps)


def _get_state(file: Path) -> list[int]:
    if is_lance_table(file):
        return get_lance_state(file)
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _list_endings(file: Path) -> list[str]:
    """Return the ending of every row's image, "" for rows without one; one row group is in memory at a time."""
    if is_lance_table(file):
        return [_get_ending(*_take_apart(value)) for value in iterate_lance_values(file, _find_column)]
    try:
        with pq.ParquetFile(file) as table:
            column = _find_column(table.schema_arrow, file)
            endings: list[str] = []
            for group in range(table.num_row_groups):
                values = table.read_row_group(group, [column])[column]
                endings += [_get_ending(*_take_apart(value)) for value in values.to_pylist()]
            return endings
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read as Parquet: {get_first_line(error)}.") from error


def _find_column(schema: pa.Schema, file: Path) -> str:
    def is_binary(kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    for field in schema:
        kind = field.type
        if is_binary(kind) or (
            pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)
        ):
            name: str = field.name
            return name
    raise InputError(
        f"{file} has no column of images (bytes, or a struct with bytes); it has {', '.join(schema.names)}."
    )


def _take_apart(value: Any) -> tuple[bytes, str]:
    """Return the bytes and the path of an image."""
    if isinstance(value, dict):
        return value.get("bytes") or b"", value.get("path") or ""
    return value or b"", ""


def _get_ending(content: bytes, path: str) -> str:
    if not content:
        return ""
    if has_image_ending(path):
        return PurePosixPath(path).suffix.lower()
    return next((ending for start, ending in _ENDING_OF if content.startswith(start)), ".jpg")


@dataclass(frozen=True)
class _Layout:
    """What the footer of a table says. No open file is kept, so that threads and forked processes share nothing."""

    column: str
    ends: list[int]  # the number of rows up to the end of each row group
    footer: pq.FileMetaData


_groups: OrderedDict[tuple[Path, int, int, int], list[Any]] = OrderedDict()  # by file, its state, row group
_lock = threading.Lock()


def _read_bytes(file: Path, row: int) -> bytes:
    if file.name.lower().endswith(LANCE_ENDING):
        return _read_lance_bytes(file, row)
    try:
        size, changed = _get_state(file)
        layout = _read_layout(file, size, changed)
        group = bisect_right(layout.ends, row)
        if group == len(layout.ends):
            raise UnreadableImage(LOST, "the table has fewer rows than when it was listed")
        key = file, size, changed, group
        with _lock:  # rows are read in order, so that nearly all find their group in memory
            if key not in _groups:
                with pq.ParquetFile(file, metadata=layout.footer) as table:
                    _groups[key] = table.read_row_group(group, [layout.column])[layout.column].to_pylist()
            values = _groups[key]
            _groups.move_to_end(key)
            while len(_groups) > _GROUPS_HELD:
                _groups.popitem(last=False)
    except (OSError, pa.ArrowException, InputError) as error:
        raise UnreadableImage(LOST, get_first_line(error, 200)) from error
    first = layout.ends[group - 1] if group else 0
    return _take_apart(values[row - first])[0]


@lru_cache(_LAYOUTS_HELD)
def _read_layout(file: Path, size: int, changed: int) -> _Layout:
    """Read the footer of a table whose size and time of change are these, so that a changed one is read anew."""
    with pq.ParquetFile(file) as table:
        footer = table.metadata
        counts = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        return _Layout(_find_column(table.schema_arrow, file), list(accumulate(counts)), footer)


def _read_lance_bytes(file: Path, row: int) -> bytes:
    try:
        value = read_lance_value(file, row, _find_column)
    except InputError as error:
        raise UnreadableImage(LOST, get_first_line(error, 200)) from error
    if value is None:
        raise UnreadableImage(LOST, "the table has fewer rows than when it was listed")
    return _take_apart(value)[0]
