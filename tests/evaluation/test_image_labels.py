"""Clusters against labels of whole images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from fastcomus.errors import InputError
from fastcomus.evaluation.image_labels import compute_object_accuracy, evaluate_labels, find_image_cluster
from fastcomus.evaluation.score_table import format_table
from fastcomus.evaluation.truth.truth import ImageLabels


def test_object_accuracy() -> None:
    truth = np.array(["cat", "cat", "dog", "dog", "dog", "cow"])
    assert compute_object_accuracy(np.array([7, 7, 0, 0, 0, 3]), truth) == 1.0
    assert compute_object_accuracy(np.array([0, 0, 0, 0, 0, 0]), truth) == 3 / 6  # one cluster: the largest class
    assert compute_object_accuracy(np.array([0, 1, 2, 3, 4, 5]), truth) == 3 / 6  # one each: an object a class
    assert compute_object_accuracy(np.array([1, 1, 1, 0, 0, 0]), truth) == 4 / 6
    assert compute_object_accuracy(np.array([-1, 7, 0, 0, -1, -1]), truth) == 3 / 6  # noise is wrong, never a cluster
    assert compute_object_accuracy(np.full(6, -1), truth) == 0.0


def test_images_with_labels() -> None:
    """Classes x, y, z; cluster 1 is x, cluster 2 is y but for one image, nothing found in one z."""
    truth = ImageLabels(
        Path("data"), ("x", "y", "z"), {f"{i}": label for i, label in enumerate([0, 0, 1, 1, 1, 2, 2, 2])}
    )
    clusters = {"0": 1, "1": 1, "2": 2, "3": 2, "4": 1, "5": 3, "6": 0, "no label": 2}
    found = evaluate_labels(clusters, truth, 4, bootstrap=50)
    true, labels = [0, 0, 1, 1, 1, 2, 2], [1, 1, 2, 2, 1, 3, 0]
    assert found.accuracy == 5 / 7 == found.majority_accuracy
    assert found.nmi == normalized_mutual_info_score(true, labels) and found.ari == adjusted_rand_score(true, labels)
    assert (found.images, found.empty, found.missing) == (7, 1, 1)
    assert found.assignment == (None, "x", "y", "z", None)
    low, high = found.intervals["accuracy"]
    assert 0 <= low < found.accuracy < high <= 1
    json.dumps(found.to_json(), allow_nan=False)
    console = Console(width=100, record=True)
    console.print(format_table(found))
    shown = console.export_text()
    assert "71.4" in shown and "Images in which no object was found" in shown

    exchanged = evaluate_labels({"0": 2, "1": 2, "2": 1}, truth, 4, (clusters, truth))
    assert exchanged.accuracy == 0.0 and exchanged.fitted_on == 7 and exchanged.ari == 1.0
    with pytest.raises(InputError, match="None of the 8 images with a label in data"):
        evaluate_labels({"other": 1}, truth, 4)


@given(st.integers(0, 10**6), st.integers(1, 40))
@settings(max_examples=50)
def test_accuracy_of_images_is_that_of_objects(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    labels, true = rng.integers(0, 5, count), rng.integers(0, 3, count)
    truth = ImageLabels(Path("data"), ("x", "y", "z"), {str(i): int(c) for i, c in enumerate(true)})
    found = evaluate_labels({str(i): int(c) for i, c in enumerate(labels)}, truth, 4)
    assert found.accuracy == compute_object_accuracy(labels - 1, true) <= found.majority_accuracy


def test_the_cluster_of_an_image_is_the_one_of_most_object_pixels() -> None:
    assert find_image_cluster(np.array([[0, 0, 0, 0, 2, 2, 1]], np.uint8)) == 2
    assert find_image_cluster(np.array([[0, 300, 300, 7]], np.uint16)) == 300
    assert find_image_cluster(np.zeros((3, 3), np.uint8)) == 0
