"""Columns are what NumPy had, without pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastcomus.store.columns import make_column, make_text_column, read_column

KINDS = [np.dtype(kind) for kind in (bool, np.int8, np.int32, np.int64, np.float32, np.float64)]


@given(st.sampled_from(KINDS).flatmap(lambda kind: arrays.arrays(kind, st.integers(0, 40))), st.integers(1, 3))
def test_a_column_is_read_as_it_was_made(values: np.ndarray, step: int) -> None:
    given = values[::step]  # not side by side in memory
    column = make_column(given)
    column.validate(full=True)
    assert column.to_numpy(zero_copy_only=False).tobytes() == given.tobytes()
    found = read_column(pa.chunked_array([column, column.slice(len(given) // 2), make_column(given[:0])]))
    expected = np.concatenate([given, given[len(given) // 2 :]])
    assert found.dtype == given.dtype and found.tobytes() == expected.tobytes()
    found[:] = 0  # one's own


def test_no_chunk_is_no_row() -> None:
    assert read_column(pa.chunked_array([], pa.int32())).tolist() == []


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=20))
def test_texts_are_read_as_they_were_given(texts: list[str | None]) -> None:
    column = make_text_column(texts)
    column.validate(full=True)
    assert column.to_pylist() == texts and column.null_count == texts.count(None)


def test_pandas_is_not_imported() -> None:
    pytest.importorskip("pandas")
    program = """
import sys, numpy as np, pyarrow as pa
from fastcomus.store.columns import make_column, make_text_column, read_column
table = pa.table({"a": make_column(np.arange(3)), "b": make_column(np.arange(3) > 1), "c": make_text_column(["x"] * 3)})
print(read_column(table["a"]).tolist(), read_column(table["b"]).tolist(), "pandas" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert told.strip() == "[0, 1, 2] [False, False, True] False"
