"""A folder per class: labels without masks."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.read import read_truth
from fastcomus.evaluation.truth.truth import ImageLabels


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("dog/b.jpg", "cat/a.jpg", "cat/kittens/a.png", "Ägypten/ä.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "data" / name)
    return tmp_path / "data"


def test_the_first_folder_is_the_class(folders: Path) -> None:
    truth = read_truth(f"folders:{folders}", None, ["cat/a.jpg"])
    assert isinstance(truth, ImageLabels)
    assert truth.classes == ("cat", "dog", "Ägypten")
    assert truth.labels == {"cat/a.jpg": 0, "cat/kittens/a.png": 0, "dog/b.jpg": 1, "Ägypten/ä.jpg": 2}


def test_a_list_chooses(folders: Path) -> None:
    listed = folders.parent / "list.txt"
    listed.write_text("dog/b\ncat/a.jpg\n")
    assert read_truth(f"folders:{folders}@{listed}", None, ["cat/a.jpg"]).labels == {
        "cat/a.jpg": 0,
        "dog/b.jpg": 1,
    }
    listed.write_text("dog/b\nx/y\nz.jpg\n")
    with pytest.raises(InputError, match=r"names 2 images without a file in .*data: x/y, z\.jpg;"):
        read_truth(f"folders:{folders}@{listed}", None, ["cat/a.jpg"])


def test_what_cannot_be_used(folders: Path) -> None:
    with pytest.raises(InputError, match=r"has .*jpg for instance, the run elsewhere\.jpg"):
        read_truth(f"folders:{folders}", None, ["elsewhere.jpg"])
    names = folders.parent / "classes.txt"
    names.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"has 2 names and .* 3 classes"):
        read_truth(f"folders:{folders}", names, ["cat/a.jpg"])
    with pytest.raises(InputError, match=r"holds one class folder \(kittens\)"):
        read_truth(f"folders:{loose(folders)}", None, ["cat/a.jpg"])
    Image.new("RGB", (4, 4)).save(folders / "loose.jpg")
    with pytest.raises(InputError, match=r"holds loose\.jpg beside its class folders"):
        read_truth(f"folders:{folders}", None, ["cat/a.jpg"])


def loose(folders: Path) -> Path:
    """`cat`, without the image beside its one folder."""
    (folders / "cat/a.jpg").unlink()
    return folders / "cat"
