"""Embeddings as a matrix: from the objects of a run, or from a user's own file."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.errors import InputError, get_first_line, suggest_path
from fastcomus.store.integrity import compute_file_digest

_HELD_BYTES = 2**30  # of embeddings in memory; more are left in a file
_ROWS_AT_ONCE = 65_536
_LARGEST = 1e15  # squares of larger numbers, summed up, leave float32, as those of smaller ones than its inverse


def extract_embeddings(table: pa.Table) -> np.ndarray:
    """Return (N, D) float32 from the column `embedding`, a list of numbers per row. Raises InputError if it is not."""
    column = table["embedding"].combine_chunks()
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        raise InputError(f"the column embedding must hold lists of numbers; it holds {kind}.")
    if len(column) == 0:
        return np.empty((0, 0), np.float32)
    import pyarrow.compute as pc  # a sixth of a second, which who has no embeddings need not wait for

    if column.null_count or pc.count_distinct(pc.list_value_length(column)).as_py() > 1:
        raise InputError("every row of the column embedding must hold the same number of values.")
    flat = column.flatten()
    # Where numbers are missing, they become NaN, and pandas is imported where it is installed: a fifth of a second.
    values: np.ndarray = flat.to_numpy(zero_copy_only=False) if flat.null_count else np.from_dlpack(flat)
    return values.astype(np.float32, copy=False).reshape(len(column), -1)


def join_rows(parts: Iterable[pa.Table], count: int, folder: Path) -> np.ndarray:
    """Join the column `embedding` of several tables without holding all rows twice.

    Args:
        parts: The tables.
        count: Their rows in all.
        folder: Where rows of more than 1 GiB are put into a nameless file, which is mapped into memory.

    Returns:
        (count, D) float32.

    Raises:
        InputError: Rows have different lengths, or the disk is full.
    """
    stream, rows, filled, width = None, np.empty((0, 0), np.float32), 0, 0
    try:
        for part in parts:
            matrix = extract_embeddings(part)
            if not len(matrix):
                continue
            shape = count, matrix.shape[1]
            if not filled and 4 * math.prod(shape) > _HELD_BYTES:
                stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
            elif not filled:
                rows = np.empty(shape, np.float32)
            elif matrix.shape[1] != width:
                raise InputError("every row of the column embedding must hold the same number of values.")
            width = shape[1]
            if stream:
                stream.write(np.ascontiguousarray(matrix).data)
            else:
                rows[filled : filled + len(matrix)] = matrix
            filled += len(matrix)
        assert filled == count, (filled, count)
        if stream:
            stream.flush()
            rows = np.asarray(np.memmap(stream, np.float32, "c", shape=(count, width)))
    except OSError as error:
        raise InputError(
            f"{folder} cannot hold the embeddings while they are worked on ({error.strerror or error}); free space."
        ) from error
    finally:
        if stream:
            stream.close()
    return rows


def read_embeddings(source: Any) -> tuple[np.ndarray, str]:
    """Read embeddings and compute a digest of them.

    Args:
        source: An .npy file of shape (N, D), Parquet with a column `embedding`, or rows that `check_embeddings` takes.

    Returns:
        The rows and a SHA-256 (hex).

    Raises:
        InputError: The file cannot be read.
    """
    if not isinstance(source, Path | str):
        source = check_embeddings(source)
        return source, fingerprint_embeddings(source)
    file = Path(source)
    try:
        if file.suffix.lower() == ".npy":
            rows = _read_npy(file)
        else:
            names = pq.read_schema(file).names
            if "embedding" not in names:
                raise InputError(f"{file} has no column embedding; it has {', '.join(names)}.")
            rows = extract_embeddings(pq.read_table(file, columns=["embedding"]))
        return rows, compute_file_digest(file)
    except FileNotFoundError as error:
        raise build_missing_error(file) from error
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file} is neither an .npy file nor Parquet that can be read ({get_first_line(error)})."
        ) from error


def build_missing_error(file: Path) -> InputError:
    """Return the error that a file of embeddings is not there, with near paths that are."""
    near = suggest_path(file) or "; give an .npy file or Parquet with a column embedding."
    return InputError(f"the embeddings {file} do not exist{near}")


def fingerprint_embeddings(source: Any) -> str:
    """Return the digest that `read_embeddings` computes, without reading all rows into memory."""
    if isinstance(source, Path | str):
        return compute_file_digest(Path(source))
    rows = check_embeddings(source)
    digest = hashlib.sha256(f"{rows.dtype} {rows.shape}".encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


def _read_npy(file: Path) -> np.ndarray:
    """Read an .npy file; one of more than 1 GiB is mapped into memory and never changed."""
    if file.stat().st_size > _HELD_BYTES:
        return np.asarray(np.lib.format.open_memmap(file, mode="c"))
    with file.open("rb") as stream:
        rows: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        return rows


def check_embeddings(embeddings: Any) -> np.ndarray:
    """Check embeddings.

    Args:
        embeddings: Finite real numbers of shape (N, D): an array, or what NumPy makes one of (a list, a data frame, a
            tensor in host memory).

    Returns:
        (N, D) float32 in C order.

    Raises:
        InputError: If they are not such numbers.
    """
    if hasattr(embeddings, "tocsr"):  # of SciPy's, which is not imported to find out
        raise InputError("embeddings must be dense; got a sparse matrix. Give embeddings.toarray().")
    if hasattr(embeddings, "detach"):  # a tensor, which may need gradients, lie on a device or be of bfloat16
        embeddings = embeddings.detach().float().cpu()
    if np.ma.is_masked(embeddings):
        raise InputError(
            f"embeddings must not be masked; {np.ma.count_masked(embeddings)} values are. Fill them, or leave out "
            "their rows."
        )
    try:
        rows = np.asarray(embeddings)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"embeddings must be an array of shape (N, D); got a {type(embeddings).__name__} that NumPy makes none of "
            f"({get_first_line(error)})."
        ) from error
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.number) or np.iscomplexobj(rows):
        remedy = "" if rows.ndim else " A number of clusters is given by its name: k=8."
        raise InputError(
            f"embeddings must be real numbers of shape (N, D); got {rows.dtype} of shape {rows.shape}.{remedy}"
        )
    with np.errstate(over="ignore"):  # float64 numbers that float32 cannot hold are named below
        given, rows = rows, np.ascontiguousarray(rows, np.float32)
    parts = (rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE))
    peaks = [np.maximum(part.max(axis=1, initial=0), -part.min(axis=1, initial=0)) for part in parts]
    largest = np.concatenate([np.empty(0, np.float32), *peaks])
    if not np.isfinite(largest).all():
        told = _count_rows(~np.isfinite(largest))
        raise InputError(f"embeddings must be finite; {told[0]} rows hold NaN or infinity ({told[1]}).")
    is_extreme = (largest > _LARGEST) | ((largest < 1 / _LARGEST) & (largest > 0))
    if given.dtype.itemsize > rows.dtype.itemsize:  # numbers that float32 takes for zero
        none = np.flatnonzero(largest == 0)
        is_extreme[none[given[none].any(axis=1)]] = True
    if is_extreme.any():
        told = _count_rows(is_extreme)
        raise InputError(
            f"the largest number of a row of embeddings must lie between {1 / _LARGEST:g} and {_LARGEST:g} or be 0, as "
            f"squares of others overflow or vanish in float32; {told[0]} rows are beyond ({told[1]}). Scale the rows."
        )
    return rows


def _count_rows(is_meant: np.ndarray) -> tuple[int, str]:
    """Count rows, and list the first of them in words."""
    meant = np.flatnonzero(is_meant)
    return len(meant), "rows " + ", ".join(map(str, meant[:5])) + (", ..." if len(meant) > 5 else "")


def normalise_rows(rows: np.ndarray) -> np.ndarray:
    """Return `rows`, (N, C), as float32 scaled to length 1; rows of zeros stay."""
    unit = np.zeros(rows.shape, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        norms = np.linalg.norm(rows[part], axis=1, keepdims=True)
        np.divide(rows[part], norms, where=norms > 0, out=unit[part])
    return unit
