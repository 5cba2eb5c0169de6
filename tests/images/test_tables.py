"""Images in Parquet tables, as Hugging Face datasets and others write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ENCODER, TINY, Photographs
from image_tables import PIXELS, check_rows, encode, list_contents

from fastcomus import InputError, Run
from fastcomus.images.found import UnreadableImage
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.reading import read_image


def as_datasets_does(images: list[bytes | None], paths: list[str | None] | None = None) -> pa.Table:
    rows: list[Any] = [
        None if content is None else {"bytes": content, "path": paths[i] if paths else None}
        for i, content in enumerate(images)
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"label": list(range(len(rows))), "image": pa.array(rows, kind)})


def test_every_row_with_an_image_is_read_in_any_order(tmp_path: Path) -> None:
    pq.write_table(as_datasets_does(list_contents()), tmp_path / "train.parquet", row_group_size=2)
    check_rows(tmp_path / "train.parquet")


def test_a_footer_is_read_once_until_the_table_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, opened = tmp_path / "t.parquet", []
    pq.write_table(pa.table({"jpg": [bytes([1, row]) for row in range(20)]}), table, row_group_size=2)
    root, open_table = open_root(str(table), ["t.parquet/00000000.jpg"]), pq.ParquetFile

    def note_footer(file: Path, **known: Any) -> pq.ParquetFile:
        opened.append("metadata" in known)
        return open_table(file, **known)

    monkeypatch.setattr(pq, "ParquetFile", note_footer)
    for row in [*range(20), *range(20)]:
        assert (root / f"t.parquet/{row:08d}.jpg").read_encoded(9) == bytes([1, row])
    assert opened == [False] + 20 * [True]  # each group is read twice, since four are held
    pq.write_table(pa.table({"label": range(3), "jpg": [bytes([2, row]) for row in range(3)]}), table)
    assert (root / "t.parquet/00000002.jpg").read_encoded(9) == bytes([2, 2])
    with pytest.raises(UnreadableImage, match="fewer rows"):
        (root / "t.parquet/00000003.jpg").read_encoded(9)
    table.unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        (root / "t.parquet/00000002.jpg").read_encoded(9)


def test_a_folder_of_tables_and_columns_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(as_datasets_does([encode(PIXELS[0])], ["x/cat.WEBP"]), tmp_path / "data/a.parquet")
    pq.write_table(pa.table({"jpg": [encode(PIXELS[1], "JPEG"), b""]}), tmp_path / "data/b.parquet")
    found = find_listed_images(tmp_path)
    assert found.names == ("data/a.parquet/00000000.webp", "data/b.parquet/00000000.jpg")
    assert read_image(found.root / found.names[1], 10**6).shape == PIXELS[1].shape
    before = found.stamps
    pq.write_table(pa.table({"jpg": [encode(PIXELS[2], "JPEG")]}), tmp_path / "data/b.parquet")
    assert find_listed_images(tmp_path).stamps != before


def test_tables_without_images_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column of images .* it has text"):
        find_listed_images(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        find_listed_images(tmp_path)
    pq.write_table(as_datasets_does([None]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no row with an image"):
        find_listed_images(tmp_path)


def test_a_run_on_a_table_finds_what_it_finds_in_the_files(photographs: Photographs, tmp_path: Path) -> None:
    files = sorted(photographs.images.iterdir())[:6]
    pq.write_table(as_datasets_does([file.read_bytes() for file in files]), tmp_path / "t.parquet", row_group_size=4)
    tables = []
    for name, images in (("files", [str(file) for file in files]), ("table", tmp_path / "t.parquet")):
        run = Run(tmp_path / name, preset="offline", settings={**TINY, "embed": {**TINY["embed"], **ENCODER}})
        run.embed(images)
        tables.append(run.objects().drop(["image"]))
    assert tables[0].equals(tables[1]) and len(tables[0])
