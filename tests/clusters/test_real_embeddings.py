"""The clustering core on embeddings of real photographs, step by step against scikit-learn's recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import MSRC14
from scipy.linalg import subspace_angles
from sklearn.cluster import k_means
from sklearn.manifold import spectral_embedding
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import kneighbors_graph

import fastcomus
from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import cluster_embeddings, suggest_counts
from fastcomus.config import ASSIGNMENTS, ClusterConfig
from fastcomus.run.run import Run
from fastcomus.store.embeddings import extract_embeddings

CLASSES = 14


@pytest.mark.skipif(not MSRC14.is_dir(), reason="the data set msrc14 is not here")
def test_graph_eigenmaps_and_labels_are_those_of_the_recipe(tmp_path: Path) -> None:
    every = (MSRC14 / "objects.txt").read_text().split()
    classes_of = [find_class(name) for name in every]
    names = [name for place, name in enumerate(every) if classes_of[:place].count(classes_of[place]) < 16]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / f"{name}.jpg").symlink_to(MSRC14 / "JPEGImages" / f"{name}.jpg")
    run = Run(tmp_path / "run", preset="offline", settings={"embed": {"crop_size": 128}})
    run.embed(tmp_path / "images", masks=str(MSRC14 / "Saliency"))
    embeddings = extract_embeddings(run.objects())
    assert embeddings.shape == (len(names), 1280)
    assert np.abs(np.linalg.norm(embeddings, axis=1) - 1).max() < 1e-5

    found = cluster_embeddings(embeddings, ClusterConfig(k=CLASSES, recall=1, assign="kmeans"), 0, select("cpu"))
    assert found.graph is not None and found.maps is not None
    neighbors = found.graph.n_neighbors  # fewer than the default 30, since the clusters are small
    directed = kneighbors_graph(embeddings.astype(np.float64), neighbors, include_self=True)
    graph = 0.5 * (directed + directed.T)
    # A few near ties fall otherwise in float32.
    assert (found.graph.affinity.toarray() != graph.toarray()).sum() <= 8
    maps = spectral_embedding(graph, n_components=CLASSES, random_state=0, drop_first=False)
    assert subspace_angles(found.maps.rows.astype(np.float64), maps).max() < 1e-3
    labels = k_means(maps, CLASSES, random_state=0, n_init=10)[1]
    assert adjusted_rand_score(labels, found.clusters.labels) > 0.99

    classes = np.array([find_class(image) for image in run.objects()["image"].to_pylist()])
    for one, other in ((1, 2), (3, 4), (5, 9)):  # a dozen photographs each
        few = np.concatenate([np.flatnonzero(classes == wanted)[:12] for wanted in (one, other)])
        for assign in ASSIGNMENTS:
            labels = fastcomus.cluster(embeddings[few], 2, assign=assign, device="cpu").labels
            assert adjusted_rand_score(classes[few], labels) > 0.8, (one, other, assign)
    some = np.concatenate([np.flatnonzero(classes == wanted)[:11] for wanted in range(1, CLASSES + 1)])
    counts = suggest_counts(embeddings[some], ClusterConfig(), 0, select("cpu")).counts
    assert all(10 <= count <= 18 for count in counts.values()), counts
    assert adjusted_rand_score(classes[some], fastcomus.cluster(embeddings[some], CLASSES, device="cpu").labels) > 0.8


def find_class(image: str) -> int:
    """The class of most labelled pixels of an object."""
    with Image.open(MSRC14 / "SegmentationClass" / f"{Path(image).stem}.png") as picture:
        labels = np.asarray(picture)
    return int(np.bincount(labels[(labels > 0) & (labels < 255)]).argmax())
