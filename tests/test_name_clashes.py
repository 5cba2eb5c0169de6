"""Image names that some disks take for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastcomus import name_clashes
from fastcomus.errors import InputError
from fastcomus.name_clashes import check_names, tells_apart

COMPOSED, DECOMPOSED = "caf\u00e9.jpg", "cafe\u0301.jpg"


def test_a_disk_is_asked_what_it_tells_apart(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    is_sensitive = not (tmp_path / "A").exists()
    assert tells_apart("b/IMG.JPG", "b/img.jpg", tmp_path / "not/there/yet") == is_sensitive
    assert not tells_apart("img.jpg", "img.jpg", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "clash", [("b/IMG.JPG", "b/img.jpg"), (COMPOSED, DECOMPOSED), ("STRASSE.png", "stra\u00dfe.png")]
)
def test_names_are_refused_only_where_the_disk_takes_them_for_one(
    clash: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.jpg", *clash, "a.png", "b/a.jpg"]
    monkeypatch.setattr(name_clashes, "tells_apart", lambda one, other, folder: True)
    check_names(names, tmp_path)
    monkeypatch.setattr(name_clashes, "tells_apart", lambda one, other, folder: False)
    with pytest.raises(InputError, match="would share a mask") as raised:
        check_names(names, tmp_path)
    assert all(name in str(raised.value) for name in clash)
    check_names(["a.jpg", "a.png", "b/a.jpg", "ab.jpg"], tmp_path)
