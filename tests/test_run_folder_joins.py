"""The lines of docs/run-folder.md that join the clusters with the objects, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from places import ROOT

from fastcomus import Run

PAGE = (ROOT / "docs/run-folder.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("library", ["duckdb", "pl", "pd"])
def test_a_line_of_the_page_joins_clusters_with_objects(
    library: str, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_copy.rename(run_copy.parent / "comus-run")
    monkeypatch.chdir(run_copy.parent)
    assert len(list(Path("comus-run/objects").glob("part-*.parquet"))) == 3
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "duckdb" in block)
    setting = [line for line in block.splitlines() if line.startswith(("import", "from", "objects"))]
    (line,) = (line for line in block.splitlines() if line.startswith(f"{library}."))
    space: dict[str, Any] = {}
    exec("\n".join([*setting, f"joined = {line}"]), space)
    joined = space["joined"]
    if library == "duckdb":
        rows = joined.fetchall()
        columns = dict(zip(joined.columns, zip(*rows, strict=True), strict=True))
    else:
        columns = {name: tuple(joined[name].to_list()) for name in joined.columns}
    objects, clusters = Run("comus-run").objects(), pq.read_table("comus-run/clusters/clusters.parquet")
    assert list(columns) == [*objects.column_names, *clusters.column_names[1:]]
    assert columns["image"] == tuple(objects["image"].to_pylist()) == tuple(clusters["image"].to_pylist())
    for name in ("x0", "mask"):
        assert columns[name] == tuple(objects[name].to_pylist())
    for name in ("cluster", "is_core"):
        assert columns[name] == tuple(clusters[name].to_pylist())


def test_the_page_names_every_column(run_copy: Path) -> None:
    documented = {
        file: re.findall(r"^\| (`[^|]+`) \|", part, re.MULTILINE)
        for file, part in re.findall(r"^## `([\w/N.-]+)`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    }
    for file, cells in documented.items():
        if path := next(run_copy.glob(file.replace("NNNNN", "*")), None):
            named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
            levels = {"coarse", "fine"}  # where they were asked for
            assert set(named) >= levels or "clusters" not in file
            assert pq.read_schema(path).names == [name for name in named if name not in levels], file
    assert len(documented) >= 4
