"""Embeddings from arrays and files: every layout that Parquet has for them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastcomus.errors import InputError
from fastcomus.store import embeddings
from fastcomus.store.embeddings import check_embeddings, extract_embeddings, join_rows, read_embeddings

ROWS = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)

COLUMNS = {
    "list": pa.array(ROWS.tolist(), pa.list_(pa.float32())),
    "list of doubles": pa.array(ROWS.tolist(), pa.list_(pa.float64())),
    "large list": pa.array(ROWS.tolist(), pa.large_list(pa.float32())),
    "fixed-size list": pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 4),
}


@pytest.mark.parametrize("layout", COLUMNS)
@pytest.mark.parametrize("rows_per_group", [2, 100])
def test_every_parquet_layout_gives_the_rows(layout: str, rows_per_group: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"name": list("abcdefg"), "embedding": COLUMNS[layout]}), file, rows_per_group)
    rows, digest = read_embeddings(file)
    assert rows.dtype == np.float32 and (rows == ROWS).all()
    assert read_embeddings(str(file))[1] == digest


@pytest.mark.parametrize("layout", COLUMNS)
def test_slices_and_chunks_keep_their_rows(layout: str) -> None:
    table = pa.table({"embedding": COLUMNS[layout]})
    cut = pa.concat_tables([table.slice(5), table.slice(1, 3)])
    assert (extract_embeddings(cut) == ROWS[[5, 6, 1, 2, 3]]).all()
    assert extract_embeddings(table.slice(0, 0)).shape[0] == 0


@pytest.mark.parametrize("held_bytes", [2**30, 0])
def test_parts_are_joined_in_memory_or_in_a_file_without_a_name(
    held_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_HELD_BYTES", held_bytes)
    table = pa.table({"embedding": COLUMNS["fixed-size list"]})
    rows = join_rows([table.slice(0, 0), table.slice(0, 3), table.slice(3, 1), table.slice(4)], len(ROWS), tmp_path)
    assert rows.dtype == np.float32 and rows.shape == ROWS.shape and (rows == ROWS).all()
    assert not any(tmp_path.iterdir())
    assert join_rows([table.slice(0, 0)], 0, tmp_path).shape[0] == 0
    wider = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10, np.float32)), 5)})
    with pytest.raises(InputError, match="same number"):
        join_rows([table, wider], 9, tmp_path)


def test_a_large_npy_stays_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_HELD_BYTES", 0)
    np.save(tmp_path / "rows.npy", ROWS)
    written = (tmp_path / "rows.npy").read_bytes()
    rows = check_embeddings(read_embeddings(tmp_path / "rows.npy")[0])
    assert isinstance(rows.base, np.memmap) and (rows == ROWS).all()
    rows[:] = 0  # of this process alone
    assert (tmp_path / "rows.npy").read_bytes() == written
    (tmp_path / "rows.npy").write_bytes(written[:-5])
    with pytest.raises(InputError, match=r"rows\.npy"):
        read_embeddings(tmp_path / "rows.npy")
    with pytest.raises(InputError, match=r"do not exist; did you mean .*/rows\.npy\?"):
        read_embeddings(tmp_path / "row.npy")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_npy_gives_the_rows(dtype: type, tmp_path: Path) -> None:
    given = (ROWS * 10).astype(dtype)
    np.save(tmp_path / "rows.npy", np.asfortranarray(given))
    rows, digest = read_embeddings(tmp_path / "rows.npy")
    checked = check_embeddings(rows)
    assert checked.dtype == np.float32 and checked.flags.c_contiguous and (checked == given.astype(np.float32)).all()
    np.save(tmp_path / "rows.npy", given + 1)
    assert read_embeddings(tmp_path / "rows.npy")[1] != digest


def test_digest_tells_arrays_apart() -> None:
    digests = {read_embeddings(rows)[1] for rows in (ROWS, ROWS.reshape(4, 7), ROWS.view(np.int32), ROWS + 1)}
    assert len(digests) == 4
    assert read_embeddings(ROWS)[1] == read_embeddings(np.asfortranarray(ROWS))[1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0, 2], [1], [1, 2, 3], [1, 2]]), "same number"),  # as many values in all as if even
        (pa.array([[1.0, 2], [1, 2, 3]]), "same number"),
        (pa.array([[1.0, 2], None]), "same number"),
        (pa.array([[1.0, 2], None], pa.list_(pa.float32(), 2)), "same number"),
        (pa.array([1.0, 2]), "lists of numbers; it holds double"),
        (pa.array([["a", "b"]]), "lists of numbers"),
        (pa.array(["[1, 2]"]), "lists of numbers"),
    ],
)
def test_columns_that_are_no_matrix_are_refused(column: pa.Array, message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": column}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=message):
        read_embeddings(tmp_path / "rows.parquet")


def test_null_inside_a_row_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"embedding": pa.array([[1.0, 2], [3, None]])}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows 1\)"):
        check_embeddings(read_embeddings(tmp_path / "rows.parquet")[0])


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("1 2 3\n4 5 6\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "archive.npz", rows=ROWS)
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    np.save(tmp_path / "whole.npy", ROWS)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-5])
    (tmp_path / "text.parquet").write_text("a,b\n")
    (tmp_path / "folder").mkdir()
    for name in ("text.npy", "empty.npy", "archive.npy", "cut.npy", "text.parquet", "folder", "missing.npy"):
        with pytest.raises(InputError, match=name) as raised:
            read_embeddings(tmp_path / name)
        assert "\n" not in str(raised.value)
    pq.write_table(pa.table({"vector": COLUMNS["list"], "name": list("abcdefg")}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="no column embedding; it has vector, name"):
        read_embeddings(tmp_path / "other.parquet")


def test_pickled_npy_is_refused_and_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Malicious:
        def __reduce__(self) -> tuple:
            return Path.mkdir, (trap,)

    np.save(tmp_path / "rows.npy", np.array([Malicious()], object), allow_pickle=True)
    with pytest.raises(InputError, match=r"rows\.npy"):
        read_embeddings(tmp_path / "rows.npy")
    assert not trap.exists()


@pytest.mark.parametrize("rows", [ROWS[0], ROWS[None], ROWS.astype(complex), ROWS.astype(str), ROWS > 0])
def test_arrays_that_are_no_matrix_of_numbers_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"shape \(N, D\)"):
        check_embeddings(rows)


@pytest.mark.parametrize("scale", [1e20, 1e-25, 1e-60])
def test_rows_whose_squares_leave_float32_are_refused(scale: float) -> None:
    with pytest.raises(InputError, match=r"7 rows are beyond \(rows 0, 1, 2, 3, 4, \.\.\.\)\. Scale the rows"):
        check_embeddings(ROWS.astype(np.float64) * scale)
    rows = np.zeros((3, 4))
    rows[1, 2] = scale
    with pytest.raises(InputError, match=r"1 rows are beyond \(rows 1\)"):
        check_embeddings(rows)
    assert not check_embeddings(np.zeros((3, 4))).any()


def test_masked_values_are_refused() -> None:
    masked = np.ma.masked_less(ROWS, -1)
    with pytest.raises(InputError, match=rf"must not be masked; {(ROWS < -1).sum()} values are"):
        check_embeddings(masked)
    assert (check_embeddings(np.ma.array(ROWS)) == ROWS).all()


def test_broken_rows_are_counted_and_named() -> None:
    rows = np.repeat(ROWS, 3, axis=0).astype(np.float64)
    rows[[1, 3, 5, 7, 9, 11], 2] = [np.nan, np.inf, -np.inf, np.nan, 1e300, np.nan]
    with pytest.raises(InputError, match=r"6 rows .*\(rows 1, 3, 5, 7, 9, \.\.\.\)"):
        check_embeddings(rows)
