"""Images in tars: found under every way to name them, read from any thread, gone when their tar is."""

from __future__ import annotations

import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hostile_files import good_file
from hostile_tars import GOOD, HOSTILE, packed

from fastcomus.errors import InputError
from fastcomus.images.found import LOST, UnreadableImage
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.reading import read_image
from fastcomus.images.tar_shards import TarShards

MAX_PIXELS = 1_000_000


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three tars of four images each, one of them deeper, and the same images as files in `plain`."""
    rng = random.Random(0)
    for place, name in enumerate(("s-08.tar", "s-09.tar", "deep/s-10.tar")):
        files = []
        for index in range(4):
            ending, content = good_file(rng)
            files.append((f"x/{place}-{index}.{ending}", content))
            plain = tmp_path / "plain" / name / files[-1][0]
            plain.parent.mkdir(parents=True, exist_ok=True)
            plain.write_bytes(content)
        tar = tmp_path / "tars" / name
        tar.parent.mkdir(parents=True, exist_ok=True)
        tar.write_bytes(packed(*files))
    return tmp_path / "tars"


@pytest.mark.parametrize(
    ("given", "count"),
    [("", 12), ("s-{08..09}.tar", 8), ("s-08.tar", 4), ("*.tar", 8), ("**/*.tar", 12), ("{deep/s-10,s-08}.tar", 8)],
)
def test_every_way_to_name_tars(given: str, count: int, shards: Path) -> None:
    found = find_listed_images(shards / given if given else shards)
    assert isinstance(found.root, TarShards) and found.skipped == ()
    plain = find_listed_images(shards.parent / "plain")
    assert (
        len(found.names) == count and set(found.names) <= set(plain.names) and found.names == tuple(sorted(found.names))
    )
    assert set(found.stamps) == set(found.names)
    again = open_root(str(found.root), found.names)
    for root in (found.root, again, pickle.loads(pickle.dumps(found.root))):
        for name in found.names:
            assert np.array_equal(read_image(root / name, MAX_PIXELS), read_image(plain.root / name, MAX_PIXELS))


def test_a_folder_with_images_in_it_is_a_folder_of_images(shards: Path) -> None:
    (shards / "a.png").write_bytes(b"x")
    assert find_listed_images(shards).names == ("a.png",)


def test_a_folder_called_like_a_tar_is_a_folder(shards: Path) -> None:
    found = find_listed_images(shards.parent / "plain")
    assert found.names[0].startswith("deep/s-10.tar/")
    assert open_root(str(found.root), found.names) == shards.parent / "plain"


def test_a_list_may_name_files_for_embed(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards.parent / "plain")
    names = sorted(str(path) for path in Path().rglob("*.*") if path.is_file())[:3]
    (shards.parent / "list.txt").write_text("\n".join(names))
    assert len(find_listed_images(shards.parent / "list.txt").names) == 3


def test_threads_read_at_once(shards: Path) -> None:
    found = find_listed_images(shards)
    expected = {name: read_image(shards.parent / "plain" / name, MAX_PIXELS) for name in found.names}
    root = open_root(str(found.root), found.names)  # which has no index yet
    with ThreadPoolExecutor(8) as pool:
        for name, pixels in pool.map(lambda name: (name, read_image(root / name, MAX_PIXELS)), found.names * 5):
            assert np.array_equal(pixels, expected[name])


def test_stamps_change_with_the_tar_and_the_place(shards: Path) -> None:
    before = find_listed_images(shards).stamps
    assert find_listed_images(shards).stamps == before
    os.utime(shards / "s-08.tar", ns=(1, 1))
    after = find_listed_images(shards).stamps
    assert {name.partition("/")[0] for name in before if before[name] != after[name]} == {"s-08.tar"}


@pytest.mark.parametrize("change", ["rewritten", "gone", "cut"])
def test_a_tar_that_changed_since_it_was_listed_is_lost(change: str, shards: Path) -> None:
    found = find_listed_images(shards / "s-08.tar")
    tar = shards / "s-08.tar"
    if change == "gone":
        tar.unlink()
    else:
        tar.write_bytes(GOOD if change == "rewritten" else tar.read_bytes()[:700])
    with pytest.raises(UnreadableImage) as caught:
        read_image(found.root / found.names[0], MAX_PIXELS)
    assert caught.value.reason == LOST
    if change == "rewritten":  # listed again, all is well
        assert find_listed_images(tar).names == ("s-08.tar/good.png",)


def test_more_bytes_than_the_pixels_can_have_are_not_read(shards: Path) -> None:
    (shards / "big.tar").write_bytes(packed(("big.png", bytes(9_000))))
    found = find_listed_images(shards / "big.tar")
    with pytest.raises(UnreadableImage, match="too large: 9000 bytes; 8000 are the most"):
        read_image(found.root / "big.tar/big.png", 1_000)


def test_missing_and_damaged_tars_are_told_and_the_others_used(shards: Path) -> None:
    (shards / "s-10.tar").write_bytes(HOSTILE["no tar"][0])
    (shards / "s-11.tar").write_bytes(HOSTILE["leads out"][0])
    (shards / "s-12.tar").mkdir()
    os.mkfifo(shards / "s-14.tar")
    found = find_listed_images(str(shards / "s-{08..14}.tar"))
    assert len(found.names) == 9 and "s-11.tar/good.png" in found.names
    assert {one.image: one.reason for one in found.skipped} == {
        "s-10.tar": "damaged archive",
        "s-11.tar/../../evil.png": "unsafe name",
        "s-12.tar": "not a regular file",
        "s-13.tar": LOST,
        "s-14.tar": "not a regular file",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("absent.tar", "is no tar that is there; give a tar, a folder of tars, or a pattern"),
        ("none-{0..9}.tar", "is no tar that is there"),
        ("packed.tar.gz", r"holds no tar with an image .* such as packed.tar.gz \(compressed archive\)"),
        ("empty.tar", "holds no tar with an image in it that can be used"),
    ],
)
def test_what_holds_no_image_gets_one_sentence(given: str, message: str, shards: Path) -> None:
    (shards / "packed.tar.gz").write_bytes(HOSTILE["compressed"][0])
    (shards / "empty.tar").write_bytes(packed(("a.txt", b"x")))
    with pytest.raises(InputError, match=message):
        find_listed_images(shards / given)


def test_a_root_that_is_gone_is_told(shards: Path) -> None:
    found = find_listed_images(shards)
    shards.rename(shards.parent / "elsewhere")
    with pytest.raises(InputError, match="no longer there"):
        open_root(str(found.root), found.names)
