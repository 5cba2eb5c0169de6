"""Lists of paths: relative to here, from files and from standard input, with missing files and things that are none."""

from __future__ import annotations

import io
import ntpath
import posixpath
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Photographs

from fastcomus.errors import InputError
from fastcomus.images.listing import find_common_folder, find_listed_images


@pytest.fixture
def here(photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sub/deep").mkdir(parents=True)
    for name in ("sub/b.png", "sub/deep/a.png", "c.png"):
        (tmp_path / name).write_bytes((photographs.images / "00.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_and_an_image_are_what_they_always_were(here: Path) -> None:
    assert find_listed_images(here).names == ("c.png", "sub/b.png", "sub/deep/a.png")
    assert find_listed_images("sub/b.png").names == ("b.png",)


def test_what_fastcomus_made_is_no_photograph(here: Path, finished_run: Path) -> None:
    names = find_listed_images(here).names
    shutil.copytree(finished_run, here / "sub/comus-run")
    (here / "masks").mkdir()
    shutil.copy(here / "c.png", here / "masks")
    assert find_listed_images(here).names == ("c.png", "masks/c.png", *names[1:])
    (here / "masks/predictions.json").write_text('{"windows": [], "sha256": ""}')
    assert find_listed_images(here).names == names
    (here / "masks/predictions.json").write_text("[1]")  # somebody else's
    assert "masks/c.png" in find_listed_images(here).names


@pytest.mark.parametrize("from_standard_input", [False, True])
def test_a_list_is_relative_to_here_and_its_names_to_the_folder_they_share(
    from_standard_input: bool, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = f"sub/deep/a.png\r\n\n./sub/../sub/b.png\nsub/b.png\nsub/gone.jpg\n{here}/sub/deep\n".encode()
    (here / "elsewhere").mkdir()
    (here / "elsewhere/list.txt").write_bytes(content)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    found = find_listed_images("-" if from_standard_input else "elsewhere/list.txt")
    assert found.root == here / "sub" and found.names == ("b.png", "deep/a.png")
    assert {one.image: one.reason for one in found.skipped} == {"gone.jpg": "unreadable", "deep": "not a regular file"}


def test_spaces_around_a_path_count_only_where_it_is_called_so(here: Path) -> None:
    shutil.copy(here / "c.png", here / "sub/ d.png")
    shutil.copy(here / "c.png", here / "d.png")
    (here / "list.txt").write_text("c.png \n  sub/b.png\t\n./sub/ d.png\n gone.png \n \n")
    found = find_listed_images(here / "list.txt")
    assert found.names == ("c.png", "sub/ d.png", "sub/b.png")
    assert [(one.image, one.detail) for one in found.skipped] == [("gone.png", "the file does not exist")]
    Path(" d.png").write_bytes((here / "d.png").read_bytes())
    assert find_listed_images([" d.png", "c.png"]).names == (" d.png", "c.png")


def test_a_list_in_python_is_as_one_in_a_file(here: Path) -> None:
    found = find_listed_images(["sub/b.png", here / "c.png", "gone.png"])
    assert found.root == here and found.names == ("c.png", "sub/b.png") and found.skipped[0].image == "gone.png"
    for bad, told in (([], "names no image"), ([3], "must hold paths"), (["a\nb"], "must hold paths"), (3, "got int")):
        with pytest.raises(InputError, match=told):
            find_listed_images(bad)  # type: ignore[arg-type]


def test_names_never_lead_out_of_the_root(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "sub/deep")
    Path("list").write_text("../../c.png\na.png\n")
    found = find_listed_images("list")
    assert found.root == here and found.names == ("c.png", "sub/deep/a.png")


def test_a_name_that_is_no_utf8_is_skipped(here: Path) -> None:
    (here / "list").write_bytes(b"c.png\n\xff.png\n")
    found = find_listed_images(here / "list")
    assert found.names == ("c.png",) and found.skipped[0].image == "\\xff.png"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "list names no image; give one path or URL a line"),
        (b"\n \n", "names no image"),
        (
            b"sub/x.png\nsub/y.png\n",
            r"none of the 2 paths in list is a file, such as x.png \(the file",
        ),
        (b"\x89PNG\0\0", "neither an image nor a list"),
    ],
)
def test_bad_lists_get_one_sentence(content: bytes, message: str, here: Path) -> None:
    (here / "list").write_bytes(content)
    with pytest.raises(InputError, match=message):
        find_listed_images("list")


def test_a_list_may_begin_with_a_byte_order_mark_and_end_its_lines_as_windows_does(here: Path) -> None:
    (here / "list.txt").write_bytes(b"\xef\xbb\xbfsub/b.png\r\nc.png\r\n")
    assert find_listed_images(here / "list.txt").names == ("c.png", "sub/b.png")


def test_the_common_folder_is_found_on_every_system() -> None:
    assert find_common_folder(["/a/b/c.png", "/a/d.png"], posixpath) == "/a"
    assert find_common_folder(["C:\\a\\b\\c.png", "C:\\A\\d.png"], ntpath).lower() == "c:\\a"
    assert find_common_folder(["\\\\server\\share\\c.png"], ntpath) == "\\\\server\\share\\"
    with pytest.raises(InputError, match="different drives"):
        find_common_folder(["C:\\c.png", "D:\\d.png"], ntpath)
