"""Dozens of hostile files through `embed`; bench/faults.py sends ten thousand."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest
from conftest import tree_bytes
from crash_stages import SMALL
from hostile_files import KINDS, write_good, write_hostile

from fastcomus.images.folder import find_images
from fastcomus.images.found import UnreadableImage
from fastcomus.images.reading import read_image
from fastcomus.run.contents import read_skipped
from fastcomus.run.run import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither such names nor pipes in folders")

COUNT = 64


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "images"
    write_hostile(root, COUNT, seed=0)
    write_good(root / "good", 12, seed=1)
    return root


def test_every_file_becomes_objects_or_is_listed_with_its_reason(hostile: Path, tmp_path: Path) -> None:
    beside = tree_without_pipes(hostile)
    settings = {**SMALL, "embed": {**SMALL["embed"], "shard_images": 64}}
    run = Run(tmp_path / "run", preset="offline", settings=settings, device="cpu", workers=2)
    embedded = run.embed(hostile, max_pixels=2_000_000)
    objects, skipped = run.objects().to_pylist(), read_skipped(run.folder).to_pylist()
    names = {row["image"] for row in objects}
    assert embedded.objects == len(objects) and embedded.skipped == len(skipped)
    assert {f"good/000/{index:06d}" for index in range(12)} <= {name.rpartition(".")[0] for name in names}
    found = find_images(hostile)
    assert names | {row["image"] for row in skipped} == {*found.names, *(one.image for one in found.skipped)}
    assert not names & {row["image"] for row in skipped}
    reasons = {row["reason"] for row in skipped}
    assert {"unreadable", "truncated", "too large", "empty file", "not a regular file", "broken link"} <= reasons
    assert all(row["reason"] and "\n" not in row["detail"] for row in skipped)
    assert tree_without_pipes(hostile) == beside and [path.name for path in tmp_path.iterdir()] == ["run"]
    clusters = run.cluster(k=3)
    assert len(clusters.labels) == len(objects)
    masks = [path for path in (tmp_path / "run/iteration-0/masks").rglob("*") if path.is_file()]
    readable = {row["image"] for row in skipped if row["width"]} | names
    assert len(masks) == len(readable)
    # The same a second time, which finds all of it done.
    before = tree_bytes(tmp_path / "run")
    run.embed(hostile, max_pixels=2_000_000)
    assert tree_bytes(tmp_path / "run") == before


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS), ids=lambda kind: kind.__name__)
def test_reading_any_of_them_gives_pixels_or_a_reason_within_seconds(kind, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for seed in range(10):
        file.write_bytes(kind(random.Random(seed))[1])
        started = time.process_time()
        try:
            pixels = read_image(file, 2_000_000)
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
        except UnreadableImage as error:
            assert error.reason and error.detail  # noqa: PT017
        assert time.process_time() - started < 10  # of the processor: a hang, not a slow machine


def test_good_files_are_good(tmp_path: Path) -> None:
    write_good(tmp_path, 20, seed=0)
    files = list(tmp_path.rglob("*.*"))
    assert len(files) == 20
    for path in files:
        assert read_image(path, 2_000_000).size


def tree_without_pipes(folder: Path) -> dict[str, bytes]:
    """Regular files alone: what a link leads to may be endless."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes() for path in files}
