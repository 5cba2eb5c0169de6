"""Images in Lance tables: as bytes, and as blobs of both kinds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import ENCODER, TINY, Photographs
from image_tables import PIXELS, check_rows, encode, list_contents

from fastcomus import InputError, Run
from fastcomus.images.found import UnreadableImage
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.reading import read_image


@pytest.fixture
def lance() -> Any:
    return pytest.importorskip("lance", reason="pylance reads Lance tables (extra `lance`; 217 MB)")


def make_table(lance: Any, kind: str, contents: list[bytes | None], place: Path) -> None:
    if kind == "bytes":
        lance.write_dataset(pa.table({"n": range(len(contents)), "image": pa.array(contents, pa.binary())}), place)
    elif kind == "blobs":
        field = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
        lance.write_dataset(pa.table([pa.array(contents, field.type)], schema=pa.schema([field])), place)
    else:
        table = pa.table({"image": lance.blob_array(contents)})
        lance.write_dataset(table, place, data_storage_version="2.2")


@pytest.mark.parametrize("kind", ["bytes", "blobs", "blobs of version 2"])
def test_every_row_with_an_image_is_read_in_any_order(kind: str, lance: Any, tmp_path: Path) -> None:
    make_table(lance, kind, list_contents(), tmp_path / "train.lance")
    found = check_rows(tmp_path / "train.lance")
    assert find_listed_images(tmp_path).names == found.names  # a folder of tables
    again = open_root(str(found.root), found.names)
    with pytest.raises(UnreadableImage, match="20 are the most"):
        (again / found.names[0]).read_encoded(20)


def test_rows_added_or_deleted_are_seen(lance: Any, tmp_path: Path) -> None:
    make_table(lance, "bytes", [encode(one) for one in PIXELS[:3]], tmp_path / "t.lance")
    before = find_listed_images(tmp_path / "t.lance")
    lance.dataset(tmp_path / "t.lance").delete("n = 1")
    after = find_listed_images(tmp_path / "t.lance")
    assert len(after.names) == 2 and after.stamps != before.stamps
    assert (read_image(after.root / after.names[1], 10**6) == PIXELS[2]).all()


def test_tables_without_images_are_told(lance: Any, tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"text": ["a"]}), tmp_path / "a.lance")
    with pytest.raises(InputError, match=r"no column of images .* it has text"):
        find_listed_images(tmp_path / "a.lance")
    (tmp_path / "b.lance/_versions").mkdir(parents=True)
    (tmp_path / "b.lance/_versions/1.manifest").write_bytes(b"no table")
    with pytest.raises(InputError, match="cannot be read as a Lance table"):
        find_listed_images(tmp_path / "b.lance")


def test_a_run_on_a_table_finds_what_it_finds_in_the_files(
    lance: Any, photographs: Photographs, tmp_path: Path
) -> None:
    files = sorted(photographs.images.iterdir())[:6]
    make_table(lance, "bytes", [file.read_bytes() for file in files], tmp_path / "t.lance")
    tables = []
    for name, images in (("files", [str(file) for file in files]), ("table", tmp_path / "t.lance")):
        run = Run(tmp_path / name, preset="offline", settings={**TINY, "embed": {**TINY["embed"], **ENCODER}})
        run.embed(images)
        tables.append(run.objects().drop(["image"]))
    assert tables[0].equals(tables[1]) and len(tables[0])


def test_a_table_without_pylance_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.lance/_versions").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(InputError, match="needs pylance; run pip install pylance"):
        find_listed_images(tmp_path / "t.lance")
