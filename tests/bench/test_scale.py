"""docs/scale.md says what bench/results/scale.json says, and the arithmetic between measurements and page."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.delitem(sys.modules, "scale", raising=False)
    import scale

    return scale


def test_the_page_has_the_numbers_that_were_measured(scale: ModuleType) -> None:
    numbers = json.loads((ROOT / "bench/results/scale.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert scale.with_table(page, scale.page_table(numbers)) == page, "run python bench/scale.py --page docs/scale.md"
    assert all(len(row["sizes"]) == 3 for row in numbers.values())


def test_bytes_each_are_the_slope_of_the_peaks(scale: ModuleType) -> None:
    linear = scale.summary({1_000: 5_000_000, 3_000: 7_000_000, 9_000: 13_000_000})
    assert linear["bytes_each"] == 1_000 and linear["bytes_each_by_part"] == [1_000, 1_000]
    assert linear["constant_bytes"] == 4_000_000
    quadratic = scale.summary({size: size**2 for size in (1_000, 2_000, 4_000)})
    assert quadratic["bytes_each_by_part"] == [3_000, 6_000]


def test_the_table_takes_the_place_between_the_marks(scale: ModuleType) -> None:
    page = f"before\n{scale.TABLE_START}\nold\n{scale.TABLE_END}\nafter\n"
    row = {**scale.summary({1_000: 10**6, 2_000: 2 * 10**6, 3_000: 3 * 10**6}), "per": "object"}
    written = scale.with_table(page, scale.page_table({"graph": row}))
    assert written.startswith("before\n") and written.endswith("\nafter\n") and "old" not in written
    assert "| graph | 1,000, 2,000, 3,000 objects | 1.0, 2.0, 3.0 | 1,000 | 1,000, 1,000 |" in written
    assert scale.with_table(written, scale.page_table({"graph": row})) == written


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are set back by Linux")
def test_a_peak_is_what_was_held_beyond_the_small_run(scale: ModuleType, tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        size = int((folder / "size").read_text())
        with mmap.mmap(-1, size) as pages:  # new ones: an allocator would hand out what this process holds already
            pages[::4096] = bytes([1]) * len(range(0, size, 4096))
        (folder / "size").write_text("0")  # done: a second time would be up to date

    small, large = tmp_path / "small", tmp_path / "large"
    for folder, size in ((small, 2**20), (large, 200 * 2**20)):
        folder.mkdir()
        (folder / "size").write_text(str(size))
    measured = scale.apart(scale.peak, work, small, large)
    assert (small / "size").read_text() == str(2**20)
    assert 195 * 2**20 < measured < 215 * 2**20
