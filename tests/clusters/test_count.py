"""How many clusters the data hold: every criterion, the curves behind it, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from planted import gaussian
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner

from fastcomus import InputError, Run, cluster
from fastcomus.backends.choose import select
from fastcomus.cli.commands import app
from fastcomus.clusters.granularity import weigh_count
from fastcomus.clusters.graph import build_knn_graph
from fastcomus.clusters.mixing import count_unmixed
from fastcomus.config import COUNT_CRITERIA

CPU = select("cpu")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", gaussian(300, 5, spread=0.5)[0])
    return tmp_path / "rows.npy"


def test_every_criterion_finds_the_planted_number_and_the_curves_say_why(rows_file: Path, tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        found = Run(tmp_path / name, preset="offline").suggest_k(rows_file, max_k=20)
        pages.append((tmp_path / name / "suggest-k/index.html").read_bytes())
    assert pages[0] == pages[1] and b"what <code>--k auto</code> takes" in pages[0]
    assert found.objects == 300 and found.counts == dict.fromkeys(COUNT_CRITERIA, 5)
    assert found.tried[0] == 2 and found.tried[-1] == 20 and len(found.eigenvalues) == 21
    assert found.tried[int(np.argmax(found.modularities))] == 5
    assert found.eigenvalues[5] - found.eigenvalues[4] == max(np.diff(found.eigenvalues)[1:])
    one = found.granularity
    assert one is not None and one.low <= 5 <= one.high and one.certainty > 0.5
    stored = json.loads((tmp_path / "one/suggest-k/counts.json").read_text())
    assert stored["counts"] == found.counts and stored["tried"] == list(found.tried)
    assert found.levels.fine is not None and not one.is_unsure()
    pairs = np.unique(np.stack([found.labels, found.levels.fine]), axis=1)  # each finer one lies in one cluster
    assert sum(map(len, stored["fine"].values())) <= pairs.shape[1] == found.levels.count()["fine"]


@pytest.mark.parametrize("criterion", ["modularity", "eigengap"])
def test_the_search_goes_on_beyond_max_k_while_it_gains(criterion: str) -> None:
    rows, truth = gaussian(360, 12, spread=0.4)
    found = cluster(rows, choose_k=criterion, max_k=6, device="cpu")
    assert adjusted_rand_score(truth, found.labels) > 0.98


def test_a_number_that_depends_on_seeds_is_said_to_be_unsure() -> None:
    graph = build_knn_graph(
        np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32), 12, "euclidean", 1.0, 0, CPU
    )
    assert weigh_count(graph, count_unmixed(graph, 0), 0).is_unsure()


@pytest.mark.parametrize("n", [2, 4])  # without curves and with them
def test_few_objects_have_a_page_too(n: int, tmp_path: Path) -> None:
    Run(tmp_path / "run", preset="offline").suggest_k(gaussian(n)[0])
    assert (tmp_path / "run/suggest-k/index.html").is_file()


def test_one_object_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 objects; got 1"):
        Run(tmp_path / "run", preset="offline").suggest_k(np.ones((1, 4)))
    assert not (tmp_path / "run").exists()


def test_from_the_command_line(rows_file: Path, tmp_path: Path) -> None:
    line = ["--run", str(tmp_path / "run"), "--preset", "offline", "--embeddings", str(rows_file)]
    said = CliRunner().invoke(app, ["suggest-k", *line, "--choose-k", "modularity"], catch_exceptions=False).stdout
    lines = said.splitlines()
    assert lines[:3] == ["mixing: 5", "modularity: 5  (what --k auto takes)", "eigengap: 5"]
    assert lines[3].startswith("mixing gives ")
    CliRunner().invoke(app, ["cluster", *line, "--k", "3"], catch_exceptions=False)
    CliRunner().invoke(app, ["cluster", *line, "--k", "auto", "--choose-k", "modularity"], catch_exceptions=False)
    assert json.loads((tmp_path / "run/clusters/manifest.json").read_text())["k"] == 5
    assert CliRunner().invoke(app, ["cluster", *line, "--k", "many"]).exit_code == 2
