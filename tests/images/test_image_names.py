"""Whatever names strangers give, what is kept can be written below a folder, all of it at once."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcomus.images.names import explain_unsafe_name, select_safe_names
from fastcomus.store.masks import get_mask_path
from fastcomus.store.run_folder import RunFolder

parts = st.sampled_from(
    ["a", "b.jpg", "c.png", "b.jpg.png", "..", ".", "", ".x", "\0", "é" * 200, "\udcff", "~", "a b\n"]
)
names = st.one_of(st.lists(parts, min_size=1, max_size=4).map("/".join), st.text(max_size=20))


@given(st.lists(names, max_size=12))
@settings(max_examples=300)
def test_what_is_kept_lies_in_the_run_folder_beside_all_others(given_names: list[str]) -> None:
    kept, skipped = select_safe_names(given_names)
    assert kept == sorted(set(kept)) and set(kept) <= set(given_names)
    hidden = [name for name in set(given_names) if any(part[:1] == "." for part in name.split("/"))]
    told = {one.image for one in skipped}
    assert all(one.reason and one.detail for one in skipped)
    printable = {name.encode(errors="surrogateescape").decode(errors="backslashreplace"): name for name in given_names}
    assert {printable[one] for one in told} | set(kept) | set(hidden) == set(given_names)
    places = set()
    for name in kept:
        for folder in ("iteration-1", "out"):
            place = RunFolder("/run").resolve_file(get_mask_path(folder, name))
            assert place.is_relative_to("/run") and ".." not in place.parts
            places.add(place)
    assert len(places) == 2 * len(kept)
    assert not any(parent in places for place in places for parent in place.parents)  # no mask is a folder too
    assert not any(str(parent) in kept for name in kept for parent in PurePosixPath(name).parents)


@given(st.lists(names, max_size=8))
@settings(max_examples=50)
def test_all_of_it_can_be_written(tmp_path_factory: pytest.TempPathFactory, given_names: list[str]) -> None:
    root = tmp_path_factory.mktemp("written")
    kept, _ = select_safe_names(given_names)
    for name in kept:
        place = root / get_mask_path("iteration-0", name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x")
    assert all((root / get_mask_path("iteration-0", name)).read_bytes() == b"x" for name in kept)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/a.jpg", "absolute"),
        ("../a.jpg", "leads out"),
        ("a/../../b.jpg", "leads out"),
        ("a//b.jpg", "empty"),
        ("a\0.jpg", "no path"),
        ("x" * 2000 + ".jpg", "longer than 1024"),
        ("x" * 300 + "/a.jpg", "folder's name"),
        ("a/b.jpg", ""),
        ("x" * 300 + ".jpg", ""),  # the name of its mask is cut
        ("..a/b...jpg", ""),
    ],
)
def test_unsafe_names_are_told(name: str, why: str) -> None:
    assert (why in explain_unsafe_name(name)) if why else explain_unsafe_name(name) == ""


def test_the_first_of_two_equal_names_is_taken() -> None:
    kept, skipped = select_safe_names(["b.jpg", "a.jpg", "b.jpg", "a.jpg/c.jpg", "b.jpg.png/d.jpg"])
    assert kept == ["a.jpg", "b.jpg"]
    assert {(one.image, one.reason) for one in skipped} == {
        ("b.jpg", "name occurs twice"),
        ("a.jpg/c.jpg", "unsafe name"),
        ("b.jpg.png/d.jpg", "unsafe name"),
    }


def test_hidden_ones_are_passed_over() -> None:
    assert select_safe_names([".a.jpg", "__MACOSX/._a.jpg", "b/.git/c.jpg"]) == ([], [])
