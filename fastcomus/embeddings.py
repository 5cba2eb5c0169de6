"""Embeddings as a matrix: from the objects of a run, or a person's own from a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastcomus.errors import InputError
from fastcomus.run_folder import file_digest


def embedding_matrix(table: pa.Table) -> np.ndarray:
    """(N, D) float32 from the column `embedding`, a list (of fixed size or not) of numbers per row."""
    column = table["embedding"].combine_chunks()
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        raise InputError(f"the column embedding must hold lists of numbers; it holds {kind}.")
    if len(column) == 0:
        return np.empty((0, 0), np.float32)
    if column.null_count or pc.count_distinct(pc.list_value_length(column)).as_py() > 1:
        raise InputError("every row of the column embedding must hold the same number of values.")
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float32, copy=False).reshape(len(column), -1)


def read_embeddings(source: Path | str | np.ndarray) -> tuple[np.ndarray, str]:
    """Rows and a digest of them: an array, an .npy file of shape (N, D), or Parquet with a column `embedding`."""
    if isinstance(source, np.ndarray):
        digest = hashlib.sha256(f"{source.dtype} {source.shape}".encode())
        digest.update(np.ascontiguousarray(source).tobytes())
        return source, digest.hexdigest()
    file = Path(source)
    try:
        if file.suffix.lower() == ".npy":
            with file.open("rb") as stream:
                rows = np.lib.format.read_array(stream, allow_pickle=False)
        else:
            table = pq.read_table(file)
            if "embedding" not in table.column_names:
                raise InputError(f"{file} has no column embedding; it has {', '.join(table.column_names)}.")
            rows = embedding_matrix(table)
        return rows, file_digest(file)
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{file} is neither an .npy file nor Parquet that can be read ({reason}).") from error


def checked_embeddings(rows: np.ndarray) -> np.ndarray:
    """(N, D) float32, C order; InputError unless `rows` are finite numbers in two dimensions."""
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.number) or np.iscomplexobj(rows):
        raise InputError(f"embeddings must be real numbers of shape (N, D); got {rows.dtype} of shape {rows.shape}.")
    with np.errstate(over="ignore"):  # float64 numbers that float32 cannot hold are named below
        rows = np.ascontiguousarray(rows, np.float32)
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        shown = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        raise InputError(f"embeddings must be finite; {len(broken)} rows hold NaN or infinity (rows {shown}).")
    return rows


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """(N, C) float32, every row scaled to length 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, where=norms > 0, out=np.zeros_like(rows, np.float32))
