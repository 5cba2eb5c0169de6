"""Braces as bash expands them, and the folder that a pattern never leaves."""

from __future__ import annotations

import re
import shutil
import subprocess

import braceexpand
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcomus.errors import InputError
from fastcomus.images.patterns import expand_braces, get_fixed_folder, has_wildcard

PATTERNS = [
    "s-{000..009}.tar", "s-{8..11}.tar", "s-{08..11}.tar", "{a,b}/{1..3}.tar", "{3..1}.tar", "plain.tar", "{x}.tar",
    "{}", "a{b", "{a,b{1..2}}.tar", "{,x}.tar",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_braces_are_those_of_bash(pattern: str) -> None:
    if not (bash := shutil.which("bash")):
        pytest.skip("there is no bash")
    told = subprocess.run([bash, "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True).stdout
    assert sorted(expand_braces(pattern)) == sorted(told.split("\n")[:-1])


@given(st.integers(0, 120), st.integers(0, 120), st.integers(1, 4))
@settings(max_examples=100)
def test_ranges_are_those_of_webdataset(first: int, last: int, digits: int) -> None:
    low, high = sorted((first, last))
    pattern = f"s-{{{low:0{digits}d}..{high:0{digits}d}}}.tar"
    assert sorted(expand_braces(pattern)) == sorted(braceexpand.braceexpand(pattern))


@pytest.mark.parametrize("pattern", ["{0..99999999}", "{0..999}{0..999}{0..999}", "{0..9}" * 40])
def test_a_pattern_of_too_many_names_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=re.escape(pattern)):
        expand_braces(pattern)


def test_the_folder_before_the_first_special_sign() -> None:
    assert get_fixed_folder("/data/a/s-{000..009}.tar") == "/data/a"
    assert get_fixed_folder("/data/{a,b}/s.tar") == "/data"
    assert get_fixed_folder("s3://bucket/x/*.tar") == "s3://bucket/x"
    assert has_wildcard("a*") and not has_wildcard("{a,b}")
