"""The run folder on disk: whole files or none, what is current, what is stale, what is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import tree_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fastcomus import InputError
from fastcomus.store.folder import is_outside_folder
from fastcomus.store.masks import (
    encode_class_map,
    get_mask_file_name,
    get_mask_path,
    make_voc_palette,
    read_class_map,
    write_class_map,
)
from fastcomus.store.objects_table import count_shard_rows, finish_shards, has_shard, read_shards, write_shard
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

SKIPPED = pa.schema([("image", pa.string()), ("reason", pa.string())])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_making_the_object_touches_nothing(folder: RunFolder) -> None:
    assert folder.read_state() is None and not folder.path.exists()
    assert repr(folder) == f"RunFolder({str(folder.path)!r})"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(folder: RunFolder) -> None:
    folder.write_text("stage/notes.txt", "old")
    with pytest.raises(RuntimeError), folder.replace_file("stage/notes.txt") as path:  # noqa: PT012
        path.write_text("half of the n")
        raise RuntimeError
    assert tree_bytes(folder.path) == {"stage/notes.txt": b"old"}


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_names_never_leave_the_folder(folder: RunFolder, name: str) -> None:
    with pytest.raises(InputError, match="leads out of the run folder"):
        folder.resolve_file(name)


def test_stages_are_current_only_when_finished_with_the_same_fingerprint(folder: RunFolder) -> None:
    folder.begin("clusters", "one")
    assert not folder.is_current("clusters", "one")
    folder.finish("clusters", "one", k=3)
    assert folder.is_current("clusters", "one") and not folder.is_current("clusters", "two")
    assert folder.read_manifest("clusters") == {"fingerprint": "one", "k": 3}


def test_a_killed_attempt_is_gone_on_with_and_another_is_dropped(folder: RunFolder) -> None:
    folder.begin("iteration-1", "one")
    folder.write_text("iteration-1/kept.txt", "kept")
    (folder.path / "iteration-1/0123.unfinished").write_text("what a killed writer left")
    folder.begin("iteration-1", "one")
    assert (folder.path / "iteration-1/kept.txt").exists()
    folder.finish("iteration-1", "one")
    assert sorted(tree_bytes(folder.path)) == ["iteration-1/kept.txt", "iteration-1/manifest.json"]
    folder.begin("iteration-1", "two")
    assert sorted(tree_bytes(folder.path)) == ["iteration-1/started.json"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("not a run")
    with pytest.raises(InputError, match="is not a run folder"):
        RunFolder(tmp_path).read_state()
    with pytest.raises(InputError, match="is not a run folder"):
        RunFolder(tmp_path / "holiday.txt").read_state()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 99, "config": {}, "images": ""}', "was written in format 99"),
        ('{"format": 2}', "carries no digest"),
        ("[1, 2]", "does not hold a JSON object"),
        ('{"format": 2, "conf', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_run_json_is_one_sentence(folder: RunFolder, content: str, message: str) -> None:
    folder.path.mkdir()
    (folder.path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message):
        folder.read_state()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot be written .* choose another --run"):
        RunFolder(tmp_path / "run").write_text("a.txt", "a")


def test_shards_carry_their_fingerprint_rows_and_what_they_skipped(folder: RunFolder) -> None:
    for index in range(3):
        rows = pa.table({"image": [f"{index}-{row}.jpg" for row in range(4)]})
        skipped = pa.Table.from_pylist([{"image": f"{index}.gif", "reason": "unreadable"}], schema=SKIPPED)
        write_shard(folder, index, rows, skipped, f"shard {index}")
    assert (
        has_shard(folder, 1, "shard 1") and not has_shard(folder, 1, "shard 2") and not has_shard(folder, 3, "shard 3")
    )

    listed = pa.Table.from_pylist([{"image": "first.txt", "reason": "no image"}], schema=SKIPPED)
    finish_shards(folder, 2, listed, "whole")  # the third is surplus
    assert read_shards(folder)["image"].to_pylist() == [f"{i}-{row}.jpg" for i in range(2) for row in range(4)]
    assert count_shard_rows(folder) == 8
    assert folder.read_table("objects/skipped.parquet")["image"].to_pylist() == ["first.txt", "0.gif", "1.gif"]
    assert sorted(path.name for path in folder.path.glob("objects/part-*")) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


@given(cut=st.integers(min_value=0))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_shard_cut_anywhere_counts_as_missing(folder: RunFolder, cut: int) -> None:
    write_shard(folder, 0, pa.table({"image": ["a.jpg"] * 50}), pa.table({"image": []}, schema=None), "print")
    part = folder.path / "objects/part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: cut % len(whole)])
    assert not has_shard(folder, 0, "print")


@given(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 65535)),
    st.sampled_from([254, 255, 65535]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_class_maps_come_back_as_they_were(folder: RunFolder, labels: np.ndarray, highest: int) -> None:
    labels = np.minimum(labels, highest)
    write_class_map(folder, "masks/a.png", labels)
    assert np.array_equal(read_class_map(folder, "masks/a.png"), labels)
    with Image.open(folder.path / "masks/a.png") as picture:
        assert picture.mode == ("P" if labels.max() <= 254 else "I;16")


def test_a_broken_mask_is_named_with_what_to_do(folder: RunFolder) -> None:
    write_class_map(folder, "iteration-1/masks/a.png", np.zeros((4, 4), np.uint16))
    file = folder.path / "iteration-1/masks/a.png"
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(InputError, match=r"a\.png is not a readable mask .* delete the folder .*iteration-1"):
        read_class_map(folder, "iteration-1/masks/a.png")


def test_masks_of_equal_stems_do_not_collide_and_long_names_fit() -> None:
    assert get_mask_path("iteration-0", "sub/a.jpg") == "iteration-0/masks/sub/a.jpg.png"
    assert get_mask_file_name("a.jpg") != get_mask_file_name("a.png")
    first, second = (get_mask_file_name(f"sub/{'ä' * 120}{ending}.jpeg") for ending in ("1", "2"))
    assert first != second and all(len(name.removeprefix("sub/").encode()) <= 255 for name in (first, second))


def test_fingerprints_depend_on_every_fact_and_on_no_order() -> None:
    assert compute_fingerprint(a=1, b=[2, 3]) == compute_fingerprint(b=[2, 3], a=1)
    assert (
        len({compute_fingerprint(a=1), compute_fingerprint(a=2), compute_fingerprint(b=1), compute_fingerprint(a="1")})
        == 4
    )


def test_the_palette_is_pascal_vocs() -> None:
    colours = make_voc_palette()
    assert colours[:6].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert colours[255].tolist() == [224, 224, 192] and len(np.unique(colours, axis=0)) == 256


def test_equal_class_maps_give_equal_bytes() -> None:
    labels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert encode_class_map(labels) == encode_class_map(labels.astype(np.int64))


def test_json_keeps_names_that_are_no_utf8(folder: RunFolder) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    folder.write_state({"config": {}, "images": name})
    assert (folder.read_state() or {})["images"] == name
    assert json.loads((folder.path / "run.json").read_bytes().decode("utf-8", "surrogateescape"))["format"] == 3


@pytest.mark.parametrize(
    ("name", "on_posix", "on_windows"),
    [
        ("a/b.jpg", False, False),
        ("a..b/..c.jpg", False, False),
        ("../b.jpg", True, True),
        ("a/../../b.jpg", True, True),
        ("/b.jpg", True, True),
        ("..\\b.jpg", False, True),
        ("a\\..\\..\\b.jpg", False, True),
        ("C:/b.jpg", False, True),
        ("C:b.jpg", False, True),
        ("\\b.jpg", False, True),
        ("//server/share/b.jpg", True, True),
    ],
)
def test_names_that_lead_out_are_seen_on_both_kinds_of_system(name: str, on_posix: bool, on_windows: bool) -> None:
    assert (
        is_outside_folder(name, on_windows=False) == on_posix and is_outside_folder(name, on_windows=True) == on_windows
    )
