"""Indexes of tars that Python and webdataset made, and of tars that strangers made."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest
import webdataset
from hostile_tars import HOSTILE, MEMBER, MUTATED, packed
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcomus.images.tar_index import TarIndex, index_tar

BLOCKS = (512, 4096, 2**20)


def index_of(content: bytes, block: int = 4096) -> TarIndex:
    most = 0

    def read_range(offset: int, length: int) -> bytes:
        nonlocal most
        assert offset >= 0 and length > 0 and offset + length <= len(content)
        most = max(most, length)
        return content[offset : offset + length]

    index = index_tar(read_range, len(content), block)
    assert most <= max(block, 2**20)
    assert all(0 <= offset <= offset + size <= len(content) for offset, size in index.members.values())
    return index


def members(content: bytes, block: int = 4096) -> dict[str, bytes]:
    return {name: content[place : place + size] for name, (place, size) in index_of(content, block).members.items()}


@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=180).map(
            lambda stem: f"x{stem}.png"
        ),
        st.binary(max_size=2000),
        max_size=8,
    ),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from(BLOCKS),
)
@settings(max_examples=60)
def test_every_member_is_found_where_it_lies(files: dict[str, bytes], layout: int, block: int) -> None:
    assert members(packed(*files.items(), layout=layout), block) == files


def test_shards_of_webdataset(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "shard.tar")) as sink:
        for index in range(5):
            sink.write({"__key__": f"a/{index:03d}", "jpg": b"jpeg %d" % index, "json": {"label": index}, "cls": index})
    content = (tmp_path / "shard.tar").read_bytes()
    assert members(content) == {f"a/{index:03d}.jpg": b"jpeg %d" % index for index in range(5)}


def test_what_is_no_image_is_passed_over() -> None:
    files = {"./a/b.jpg": b"1", "a/c.JPEG": b"2", "a/d.txt": b"3", "README": b"4", ".hidden.png": b"5", "._a.jpg": b"6"}
    content = packed(*files.items())
    assert members(content) == {"a/b.jpg": b"1", "a/c.JPEG": b"2"}
    assert index_of(content).skipped == ()


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("block", BLOCKS)
def test_hostile_tars_give_what_is_good_and_a_reason(what: str, block: int) -> None:
    content, has_good, reasons = HOSTILE[what]
    index = index_of(content, block)
    assert set(index.members) == ({"good.png"} if has_good else set())
    assert members(content, block) == ({"good.png": MEMBER} if has_good else {})
    assert sorted(one.reason for one in index.skipped) == sorted(reasons)
    assert all("\n" not in one.detail and one.detail for one in index.skipped)


@pytest.mark.parametrize("kind", MUTATED, ids=lambda kind: kind.__name__)
def test_damaged_tars_give_members_that_lie_inside_and_an_end(kind) -> None:
    whole = damaged = 0
    for seed in range(300):
        content = kind(random.Random(seed))
        index = index_of(content, 512)
        whole += len(index.members) == 6
        damaged += len(index.members) < 6 and bool(index.skipped)
        try:  # what tarfile itself finds before it gives up is found
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
                first = next(iter(tar), None)
        except (tarfile.TarError, ValueError, OverflowError):
            continue
        assert first is None or not first.name.endswith(".png") or index.members or index.skipped
    assert damaged > 20, (whole, damaged)


def test_a_tar_that_cannot_be_read_says_so_itself() -> None:
    def fails(offset: int, length: int) -> bytes:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        index_tar(fails, 10_240, 512)
