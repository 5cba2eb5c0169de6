"""A graph of the user's own: parity with the graph made here, planted blocks, every bad input, the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planted
import pytest
from scipy.sparse import block_diag, coo_array, csr_array, load_npz, save_npz
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from fastcomus import InputError, Run, cluster
from fastcomus.backends.choose import select
from fastcomus.clusters.graph import build_knn_graph

CPU = select("cpu")


def make_blocks(n: int = 120, k: int = 4, seed: int = 0) -> tuple[csr_array, np.ndarray]:
    """A graph whose links lie within k blocks, but for a few, with random weights, and the blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.permutation(np.arange(n) % k)
    dense = rng.random((n, n)) * ((blocks[:, None] == blocks) & (rng.random((n, n)) < 0.4))
    return csr_array(dense + 0.2 * (rng.random((n, n)) < 0.005)), blocks


def test_the_graph_made_here_gives_the_same_clusters() -> None:
    rows, _ = planted.gaussian(600, spread=2.0)
    graph = build_knn_graph(rows, 30, "euclidean", 1, 0, CPU).affinity
    found, whole = cluster(k=5, graph=graph, device="cpu"), cluster(rows, 5, device="cpu")
    assert adjusted_rand_score(found.labels, whole.labels) == 1
    both = cluster(rows, 5, graph=graph, device="cpu", method="agglomerative")
    assert np.array_equal(both.labels, cluster(rows, 5, device="cpu", method="agglomerative").labels)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "dense", "integers", "matrix"])
def test_planted_blocks_are_found_from_any_matrix_symmetric_or_not(kind: str) -> None:
    graph, blocks = make_blocks()
    kinds: dict[str, Any] = {
        "csr": graph,
        "csc": graph.tocsc(),
        "coo": graph.tocoo(),
        "dense": graph.toarray(),
        "integers": (graph * 1000).astype(np.int64),
        "matrix": np.asmatrix(graph.toarray()),
    }
    assert adjusted_rand_score(blocks, cluster(k=4, graph=kinds[kind], device="cpu").labels) == 1
    assert adjusted_rand_score(blocks, cluster(graph=kinds[kind], device="cpu").labels) == 1  # k auto


def test_direction_scale_and_loops_do_not_count() -> None:
    graph, _ = make_blocks()
    usual = cluster(k=4, graph=graph, device="cpu")
    mean = (graph + graph.T) / 2
    loops = coo_array(mean + csr_array(np.diag(np.full(120, 9.0))))
    for other in (mean, graph.T, 1e30 * mean, loops):
        assert np.array_equal(cluster(k=4, graph=other, device="cpu").labels, usual.labels)
    theirs = SpectralClustering(4, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    assert adjusted_rand_score(theirs.fit_predict(mean.toarray()), usual.labels) == 1


def broken_places() -> csr_array:
    graph = make_blocks()[0]
    graph.indices[3] = 10**6
    return graph


@pytest.mark.parametrize(
    ("graph", "settings", "told"),
    [
        (np.ones((3, 4)), {}, r"square, .* got shape \(3, 4\)"),
        (-np.ones((9, 9)), {}, "must not be negative; 81 are, the least -1"),
        (np.full((9, 9), np.nan), {}, "81 are NaN or infinite"),
        (np.eye(9), {}, "no link between different objects"),
        (csr_array((9, 9)), {}, "no link between different objects"),
        (block_diag([np.ones((7, 7)), 0, 5]), {}, r"2 of 9 have none \(nodes 7, 8\)\. Leave them out"),
        (np.ones((9, 9), complex), {}, "real numbers; got complex128"),
        ([[1, 2], [3]], {}, "must be a matrix"),
        (np.ones(9), {}, "square"),
        (broken_places(), {}, "the graph is damaged"),
        (np.ones((9, 9)), {"k": 10}, "k=10 with N=9 nodes"),
        (np.ones((9, 9)), {"method": "kmeans"}, "method kmeans uses no graph"),
        (np.ones((9, 9)), {"method": "communities"}, "needs embeddings besides the graph"),
        (np.ones((9, 9)), {"embeddings": np.eye(8)}, "9 nodes and there are 8 objects"),
        (None, {}, "got neither"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_bad_graphs_are_told(graph: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        cluster(graph=graph, device="cpu", **{"k": 2, **settings})


def test_a_run_takes_a_file_alone_or_with_rows(tmp_path: Path) -> None:
    graph, blocks = make_blocks()
    file, rows = tmp_path / "graph.npz", tmp_path / "rows.npy"
    save_npz(file, graph)
    np.save(rows, np.random.default_rng(0).standard_normal((120, 6)))
    run = Run(tmp_path / "run", preset="offline", device="cpu")
    alone = run.cluster(graph=file, k=4)
    assert adjusted_rand_score(blocks, alone.labels) == 1
    for command, told in ((run.report, "of a graph alone"), (lambda: run.assign(embeddings=rows), "graph of your own")):
        with pytest.raises(InputError, match=told):
            command()
    assert np.array_equal(run.cluster(rows, graph=load_npz(file), k=4).labels, alone.labels)
    assert run.report().exists()
    assert not np.array_equal(run.cluster(rows, k=4).labels, alone.labels)  # another stage: the rows hold no blocks
    (tmp_path / "text.npz").write_text("no graph")
    np.savez(tmp_path / "arrays.npz", np.eye(3))
    for name, told in (("text", "holds no graph"), ("arrays", "holds no graph"), ("grph", "did you mean .*graph.npz")):
        with pytest.raises(InputError, match=told):
            run.cluster(graph=tmp_path / f"{name}.npz", k=2)
