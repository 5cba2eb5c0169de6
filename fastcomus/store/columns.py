"""Columns of tables from NumPy and back, without pandas, which pyarrow's own ways import where it is installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def make_column(values: np.ndarray) -> pa.Array:
    """Make a column of numbers or truth values, (N,), none of which is missing."""
    packed = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(packed)])


def read_column(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column of numbers or truth values, (N,), none of which is missing."""
    is_truth = pa.types.is_boolean(column.type)
    whole = (column.cast(pa.uint8()) if is_truth else column).combine_chunks()
    values: np.ndarray = np.from_dlpack(whole)
    return values.astype(bool) if is_truth else values.copy()


def make_text_column(texts: Sequence[str | None]) -> pa.Array:
    """Make a column of texts; None is a missing one."""
    encoded = [(text or "").encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    is_there = np.packbits(np.array([text is not None for text in texts], bool), bitorder="little")
    buffers = (pa.py_buffer(one) for one in (is_there, ends, b"".join(encoded)))
    return pa.Array.from_buffers(pa.string(), len(texts), list(buffers))
