"""Rows of Lance tables, which are folders; read by pylance (the extra `lance`)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastcomus.errors import InputError, get_first_line

LANCE_ENDING = ".lance"
_VERSIONS = "_versions"  # of every Lance table, changed by every write
_TABLES_OPEN = 4
_ROWS_AT_ONCE = 64
_START_BYTES = 16
_BLOB = b"lance-encoding:blob"

FindColumn = Callable[[pa.Schema, Path], str]


def is_lance_table(path: Path) -> bool:
    """Whether a folder is a Lance table."""
    return path.name.lower().endswith(LANCE_ENDING) and (path / _VERSIONS).is_dir()


def get_lance_state(file: Path) -> list[int]:
    """Return what changes with every write to a table."""
    status = (file / _VERSIONS).stat()
    return [status.st_size, status.st_mtime_ns]


def iterate_lance_values(file: Path, find_column: FindColumn) -> Iterator[Any]:
    """Yield the value of every row; of blobs, which may be large, the first bytes alone.

    Args:
        file: The table.
        find_column: Chooses the column by the schema, in which blobs are binary.

    Raises:
        InputError: pylance is missing, the table cannot be read or has no such column.
    """
    table = _open_table(file)
    column = find_column(_show_blobs_as_binary(table.schema), file)
    with _tell_damage(file):
        if not _is_blob(table.schema.field(column)):
            for batch in table.to_batches(columns=[column], batch_size=_ROWS_AT_ONCE):
                yield from batch.column(column).to_pylist()
            return
        for row in range(table.count_rows()):
            yield _read_blob(table, column, row, _START_BYTES)


def read_lance_value(file: Path, row: int, find_column: FindColumn) -> Any:
    """Return the value of one row, or None where the table has fewer.

    Args:
        file: The table.
        row: Its number.
        find_column: As in `iterate_lance_values`.

    Raises:
        InputError: As `iterate_lance_values` does.
    """
    table = _open_table(file)
    column = find_column(_show_blobs_as_binary(table.schema), file)
    with _tell_damage(file):
        if row >= table.count_rows():
            return None
        if _is_blob(table.schema.field(column)):
            return _read_blob(table, column, row, -1)
        return table.take([row], columns=[column])[column][0].as_py()


_tables: OrderedDict[tuple[Path, int], Any] = OrderedDict()  # by folder and state
_lock = threading.Lock()


def _open_table(file: Path) -> Any:
    try:
        import lance
    except ImportError as error:
        raise InputError(f"{file} is a Lance table, which needs pylance; run pip install pylance.") from error
    with _tell_damage(file):
        key = (file, get_lance_state(file)[1])
        with _lock:
            if key not in _tables:
                _tables[key] = lance.dataset(str(file))
            _tables.move_to_end(key)
            while len(_tables) > _TABLES_OPEN:
                _tables.popitem(last=False)
            return _tables[key]


@contextmanager
def _tell_damage(file: Path) -> Iterator[None]:
    """Turn what goes wrong while a table is read into an InputError."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read as a Lance table: {get_first_line(error)}.") from error


def _is_blob(field: pa.Field) -> bool:
    extension = getattr(field.type, "extension_name", "")
    return extension.startswith("lance.blob") or (field.metadata or {}).get(_BLOB) == b"true"


def _show_blobs_as_binary(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(one.name, pa.binary()) if _is_blob(one) else one for one in schema])


def _read_blob(table: Any, column: str, row: int, size: int) -> bytes:
    found = table.take_blobs(column, indices=[row])
    if not found or found[0] is None:
        return b""
    with found[0] as blob:
        content: bytes = blob.read(size) if size >= 0 else blob.readall()
        return content
