"""Image names that some disks take for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastcomus.errors import InputError
from fastcomus.images import names as image_names
from fastcomus.images.names import check_names, is_distinct_on_disk

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
