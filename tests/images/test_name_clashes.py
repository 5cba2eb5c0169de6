"""Image names that some disks take for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastcomus import Run
from fastcomus.errors import InputError
from fastcomus.images import names as image_names
from fastcomus.images.names import check_names, is_distinct_on_disk


def test_a_mask_called_like_a_folder_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.jpg.png/b.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name)
    with pytest.raises(
        InputError, match=r"of the image a\.jpg would .* folder of the image a\.jpg\.png/b\.jpg; rename"
    ):
        Run(tmp_path / "run", preset="offline").embed(tmp_path / "photos")
    assert not (tmp_path / "run/objects").exists()
    check_names(["a.jpg", "a.jpg.d/b.jpg", "b.png/c.jpg", "c.jpg"], tmp_path)
    for folder in ("a.jpg.npy", "x/a.jpg.JPG"):
        with pytest.raises(InputError, match="would be called like a folder"):
            check_names([folder.rpartition(".")[0], f"{folder}/y/b.jpg"], tmp_path)


COMPOSED, DECOMPOSED = "caf\u00e9.jpg", "cafe\u0301.jpg"


def test_a_disk_is_asked_what_it_tells_apart(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    is_sensitive = not (tmp_path / "A").exists()
    assert is_distinct_on_disk("b/IMG.JPG", "b/img.jpg", tmp_path / "not/there/yet") == is_sensitive
    assert not is_distinct_on_disk("img.jpg", "img.jpg", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "clash", [("b/IMG.JPG", "b/img.jpg"), (COMPOSED, DECOMPOSED), ("STRASSE.png", "stra\u00dfe.png")]
)
def test_names_are_refused_only_where_the_disk_takes_them_for_one(
    clash: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = ["a.jpg", *clash, "a.png", "b/a.jpg"]
    monkeypatch.setattr(image_names, "is_distinct_on_disk", lambda one, other, folder: True)
    check_names(listed, tmp_path)
    monkeypatch.setattr(image_names, "is_distinct_on_disk", lambda one, other, folder: False)
    with pytest.raises(InputError, match="would share a mask") as raised:
        check_names(listed, tmp_path)
    assert all(name in str(raised.value) for name in clash)
    check_names(["a.jpg", "a.png", "b/a.jpg", "ab.jpg"], tmp_path)
