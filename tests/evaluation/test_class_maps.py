from __future__ import annotations

import itertools
import json
import math
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from places import MSRC14
from rich.console import Console
from scipy.optimize import linear_sum_assignment

from fastcomus.backends.choose import select
from fastcomus.errors import InputError
from fastcomus.evaluation.class_maps import Evaluation, evaluate
from fastcomus.evaluation.confusion import compute_confusion_matrix
from fastcomus.evaluation.matching import Matching, Score, match_hungarian, match_majority, score
from fastcomus.evaluation.pair_counts import count_pairs
from fastcomus.evaluation.score_table import format_table
from fastcomus.evaluation.truth.read import read_truth
from fastcomus.evaluation.truth.truth import Truth, read_mask

CPU = select("cpu")
needs_msrc14 = pytest.mark.skipif(not MSRC14.is_dir(), reason="the data set msrc14 is not here")


def confusion_matrix(predicted: np.ndarray, truth: np.ndarray, n_clusters: int, n_classes: int) -> np.ndarray:
    return compute_confusion_matrix(predicted, truth, n_clusters, CPU)[:, : n_classes + 1]


def scored(class_maps: Iterable[tuple[str, np.ndarray]], truth: Truth, k: int, **options: Any) -> Evaluation:
    maps = dict(class_maps)
    counts = count_pairs(list(maps), maps.__getitem__, truth, k, CPU, workers=2, keep_images=True)
    return evaluate(counts, **options)


# The plain reference: every pair of labels is compared on all pixels, as boolean masks.


def reference_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 0.0


def reference_ious(predicted: np.ndarray, truth: np.ndarray, n_clusters: int, n_classes: int) -> np.ndarray:
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    return np.array(
        [[reference_iou(predicted == i, truth == j) for j in range(n_classes + 1)] for i in range(n_clusters + 1)]
    )


def reference_majority(predicted: np.ndarray, truth: np.ndarray, n_clusters: int, n_classes: int) -> list[int]:
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    classes = []
    for i in range(n_clusters + 1):
        pixels = [int(((predicted == i) & (truth == j)).sum()) for j in range(n_classes + 1)]
        classes.append(pixels.index(max(pixels)) if max(pixels) else -1)
    return classes


def reference_score(
    predicted: np.ndarray, truth: np.ndarray, class_of_cluster: list[int], n_classes: int
) -> tuple[float, list[float], float]:
    """mIoU, IoU per class (NaN where the truth lacks the class), pixel accuracy."""
    predicted, truth = predicted[truth != 255], truth[truth != 255]
    renamed = np.array(class_of_cluster)[predicted]
    per_class = [
        reference_iou(renamed == j, truth == j) if (truth == j).any() else math.nan for j in range(n_classes + 1)
    ]
    present = [iou for iou in per_class if not math.isnan(iou)]
    return math.fsum(present) / len(present), per_class, int((renamed == truth).sum()) / truth.size


def best_sum_of_ious(ious: np.ndarray) -> float:
    wide = ious if ious.shape[0] <= ious.shape[1] else ious.T
    return max(
        math.fsum(wide[row, column] for row, column in enumerate(columns))
        for columns in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    n_clusters, n_classes = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 12)), draw(st.integers(2, 12)))
    truth = rng.integers(0, n_classes + 1, shape)
    # Partly a function of the truth, so that matchings are not pure chance.
    predicted = rng.integers(0, n_clusters + 1, n_classes + 1)[truth]
    noisy = rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    predicted = np.where(noisy, rng.integers(0, n_clusters + 1, shape), predicted)
    truth[rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.5]))] = 255
    truth[0, 0, 0] = draw(st.integers(0, n_classes))
    return predicted, truth, n_clusters, n_classes


def confusion_of(predicted: np.ndarray, truth: np.ndarray, n_clusters: int, n_classes: int) -> np.ndarray:
    confusion = np.zeros((n_clusters + 1, n_classes + 1), np.int64)
    for p, t in zip(predicted, truth, strict=True):
        confusion += confusion_matrix(p.astype(np.uint8), t, n_clusters, n_classes)
    return confusion


def assert_score_is(one: Score, expected: tuple[float, list[float], float]) -> None:
    miou, per_class, pixel_accuracy = expected
    assert one.miou == miou
    np.testing.assert_array_equal(one.per_class, per_class)  # NaN equals NaN here, all else to the last digit
    assert one.pixel_accuracy == pixel_accuracy
    for least, count, mean in (
        (0.2, one.discovered, one.miou_discovered),
        (5e-324, one.with_cluster, one.miou_with_cluster),
    ):
        counted = [iou for iou in per_class if iou >= least]
        assert count == len(counted)
        assert mean == math.fsum(counted) / len(counted) if counted else math.isnan(mean)


@given(maps())
@settings(max_examples=150)
def test_confusion_counts_every_pixel_that_is_not_void(case: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    predicted, truth, n_clusters, n_classes = case
    confusion = confusion_of(*case)
    assert confusion.shape == (n_clusters + 1, n_classes + 1) and confusion.dtype == np.int64
    for i, j in np.ndindex(confusion.shape):
        assert confusion[i, j] == ((predicted == i) & (truth == j)).sum()


@given(maps())
@settings(max_examples=150)
def test_scores_equal_the_plain_reference_to_the_last_digit(
    case: tuple[np.ndarray, np.ndarray, int, int],
) -> None:
    predicted, truth, _, n_classes = case
    confusion = confusion_of(*case)

    majority = match_majority(confusion)
    assert majority.class_of_cluster.tolist() == reference_majority(*case)
    hungarian = match_hungarian(confusion)
    for matching in (majority, hungarian):
        expected = reference_score(predicted, truth, matching.class_of_cluster.tolist(), n_classes)
        assert_score_is(score(confusion, matching), expected)
    assert score(confusion, majority).pixel_accuracy >= score(confusion, hungarian).pixel_accuracy


@given(maps())
@settings(max_examples=150)
def test_hungarian_is_the_best_of_all_permutations(case: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    ious = reference_ious(*case)
    confusion = confusion_of(*case)
    class_of_cluster = match_hungarian(confusion).class_of_cluster
    matched = np.flatnonzero(class_of_cluster >= 0)
    classes = class_of_cluster[matched]
    assert len(set(classes.tolist())) == len(classes), "a class was given twice"
    best = best_sum_of_ious(ious)
    assert math.fsum(ious[matched, classes]) == pytest.approx(best, rel=1e-12, abs=0)
    present = np.isin(np.arange(ious.shape[1]), case[1])
    assert score(confusion, Matching(class_of_cluster)).miou == pytest.approx(best / present.sum(), rel=1e-12)


def test_worked_by_hand_with_more_clusters_than_classes() -> None:
    """Background 60 + 0 + 5 + 0, cat 0 + 20 + 15 + 0, no dog in the truth; cluster 3 is empty."""
    confusion = np.array([[60, 0, 0], [0, 20, 0], [5, 15, 0], [0, 0, 0]])

    hungarian = score(confusion, match_hungarian(confusion))
    assert hungarian.assignment == (0, 1, None, None)
    # Cluster 2 belongs to no class: 5 pixels missed by background, 15 by cat, claimed by none.
    np.testing.assert_array_equal(hungarian.per_class, [60 / 65, 20 / 35, math.nan])
    assert hungarian.miou == math.fsum([60 / 65, 20 / 35]) / 2
    assert hungarian.pixel_accuracy == 80 / 100
    assert hungarian.discovered == 2

    majority = score(confusion, match_majority(confusion))
    assert majority.assignment == (0, 1, 1, None)
    np.testing.assert_array_equal(majority.per_class, [60 / 65, 35 / 40, math.nan])
    assert majority.pixel_accuracy == 95 / 100

    # A matching of one's own may name the absent class: it stays out of the mean, its pixels are wrong.
    own = score(confusion, Matching(np.array([0, 1, 2, -1])))
    np.testing.assert_array_equal(own.per_class, hungarian.per_class)
    assert (own.miou, own.pixel_accuracy) == (hungarian.miou, hungarian.pixel_accuracy)


def test_majority_takes_the_lowest_of_equal_classes_and_hungarian_the_higher_iou() -> None:
    confusion = np.array([[5, 5, 1], [0, 0, 2]])
    assert match_majority(confusion).class_of_cluster.tolist() == [0, 2]
    # Majority would leave class 1 to cluster 0 as well; one to one, IoU decides, not the count.
    confusion = np.array([[100, 10], [40, 9]])
    assert match_hungarian(confusion).class_of_cluster.tolist() == [0, 1]
    assert match_majority(confusion).class_of_cluster.tolist() == [0, 0]


def test_exactly_a_fifth_counts_as_discovered() -> None:
    confusion = np.array([[80, 4], [0, 1]])
    assert score(confusion, match_hungarian(confusion)).per_class[1] == 0.2
    assert score(confusion, match_hungarian(confusion)).discovered == 2


def test_void_is_ignored_whatever_is_predicted_there() -> None:
    truth = np.array([[0, 1, 255], [1, 255, 255]])
    for under_void in (0, 1, 2):
        predicted = np.array([[0, 1, under_void], [2, under_void, under_void]])
        assert confusion_matrix(predicted, truth, 2, 1).tolist() == [[1, 0], [0, 1], [0, 1]]


def test_sixteen_bit_class_maps_of_many_clusters() -> None:
    predicted = np.array([[0, 300, 700]], np.uint16)
    confusion = confusion_matrix(predicted, np.array([[0, 1, 255]], np.uint8), 700, 1)
    assert np.argwhere(confusion).tolist() == [[0, 0], [300, 1]]


def test_labels_that_do_not_fit() -> None:
    labels = np.zeros((4, 6), np.uint8)
    high = labels.copy()
    high[1, 2] = 7
    with pytest.raises(InputError, match="class map has the label 7 where k = 3"):
        confusion_matrix(high, labels, 3, 3)
    with pytest.raises(InputError, match="truth has the label 900"):
        confusion_matrix(labels, np.full((4, 6), 900, np.uint16), 3, 3)
    with pytest.raises(InputError, match="class map has the label -1"):
        confusion_matrix(labels.astype(int) - 1, labels, 3, 3)


def save_truth(folder: Path, masks: dict[str, np.ndarray], classes: tuple[str, ...] = ()) -> Truth:
    for name, labels in masks.items():
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"{name}.png")
    files = {name: folder / f"{name}.png" for name in masks}
    return Truth(folder, classes, files, lambda name: read_mask(files[name]))


@given(maps())
@settings(max_examples=25)
def test_evaluate_pools_the_images(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[np.ndarray, np.ndarray, int, int]
) -> None:
    predicted, masks, n_clusters, n_classes = case
    names = [f"{index}.jpg" for index in range(len(masks))]
    classes = tuple(f"name {index}" for index in range(n_classes + 1))
    masks[0, 0, 0] = max(1, masks[0, 0, 0])  # without any object it is refused
    truth = save_truth(tmp_path_factory.mktemp("truth"), dict(zip(names, masks, strict=True)), classes)
    found = scored(zip(names, predicted, strict=True), truth, n_clusters)

    majority = reference_majority(*case)
    assert_score_is(found.majority, reference_score(predicted, masks, majority, n_classes))
    assert found.hungarian.miou == score(confusion_of(*case), match_hungarian(confusion_of(*case))).miou
    assert found.images == len(masks) and found.missing == 0 and found.classes == classes

    per_image = []
    for p, t in zip(predicted, masks, strict=True):
        if ((p > 0) | (t > 0))[t != 255].any():
            per_image.append(reference_iou((p > 0)[t != 255], (t > 0)[t != 255]))
    if per_image:
        pooled = reference_iou((predicted > 0)[masks != 255], (masks > 0)[masks != 255])
        assert found.foreground_iou == pooled
        assert found.mean_foreground_iou == math.fsum(per_image) / len(per_image)
    else:
        assert math.isnan(found.foreground_iou) and math.isnan(found.mean_foreground_iou)

    found = scored(zip(names, predicted, strict=True), truth, n_clusters, bootstrap=3)
    read_back = Evaluation.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert repr(read_back) == repr(found)  # in which nan is nan


def test_json_has_the_keys_that_the_command_line_promises(tmp_path: Path) -> None:
    truth = save_truth(tmp_path, {"a.jpg": np.array([[0, 1, 1, 255]])}, ("background", "cat", "dog"))
    content = scored([("a.jpg", np.array([[0, 2, 2, 1]]))], truth, 2).to_json()
    one = {
        "miou": 1.0,
        "per_class": {"background": 1.0, "cat": 1.0, "dog": None},
        "pixel_accuracy": 1.0,
        "discovered": 2,
        "miou_discovered": 1.0,
        "with_cluster": 2,
        "miou_with_cluster": 1.0,
        "assignment": ["background", None, "cat"],
    }
    assert content == {
        "hungarian": one,
        "majority": one,
        "classes": ["background", "cat", "dog"],
        "images": 1,
        "missing": 0,
        "foreground_iou": 1.0,
        "mean_foreground_iou": 1.0,
        "fitted_on": 0,
        "cluster_names": [],
        "object_or_not": False,
        "intervals": {},
        "confusion": [[1, 0, 0], [0, 0, 0], [0, 2, 0]],
        "class_shares": [1 / 3, 2 / 3, None],
    }


def test_without_names_the_classes_are_numbered_to_the_highest_label(tmp_path: Path) -> None:
    labels = np.array([[0, 2, 2, 255]])
    found = scored([("a.jpg", labels % 4)], save_truth(tmp_path, {"a.jpg": labels}), 3)
    assert found.classes == ("background", "class 1", "class 2")
    assert found.hungarian.miou == 1.0 and math.isnan(found.hungarian.per_class[1])


def test_images_without_truth_are_passed_over_and_missing_maps_are_counted(tmp_path: Path) -> None:
    labels = np.array([[0, 1]])
    truth = save_truth(tmp_path, {"a.jpg": labels, "b.jpg": labels})
    found = scored([("a.jpg", labels), ("no truth.jpg", np.ones((9, 9), int))], truth, 1)
    assert (found.images, found.missing, found.hungarian.miou) == (1, 1, 1.0)
    with pytest.raises(InputError, match="None of the 2 images"):
        scored([("no truth.jpg", labels)], truth, 1)


def test_all_masks_that_do_not_fit_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 5], [0, 7, 0]])
    truth = save_truth(tmp_path, {f"{i}.jpg": labels if i else labels % 5 % 2 for i in range(4)}, ("background", "cat"))
    with pytest.raises(InputError, match=r"^3 masks of 4 in .* above 1, .* end: 5, 7, first in .*1\.jpg\.png; give"):
        scored([(name, labels % 2) for name in truth.files], truth, 1)
    with pytest.raises(InputError, match=r"^2 masks of 3 .*1\.jpg\.png, the first, is 3 x 2 px .*1\.jpg has 2 x 3 \("):
        scored([("0.jpg", labels % 2), *((f"{i}.jpg", labels.T % 2) for i in (1, 2))], truth, 1)


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        ([255, 255], 0, "are void"),
        ([0, 0], 0, "No mask of the 1 scored images .* background \\(0\\); check --truth"),
        ([0, 0], 3, "No mask of the 1 scored images"),
        ([0, 255], 3, "or void .*; where 255 is the object, leave --classes out"),
        ([0, 255, 255, 255, 200, 30], 0, "soft edges"),
    ],
)
def test_truth_in_which_no_object_can_be_scored(tmp_path: Path, labels: list[int], classes: int, told: str) -> None:
    truth = save_truth(tmp_path, {"a.jpg": np.array([labels])}, tuple("abcdef"[:classes]))
    with pytest.raises(InputError, match=told):
        scored([("a.jpg", np.array([labels]) % 2)], truth, 1)


def draw_object_or_not() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Truth of 0 and 1, and class maps that differ from it by a row."""
    truth, found = {}, {}
    for i in range(4):
        mask = np.zeros((10, 10), np.uint8)
        mask[2:8, 3:9] = i < 3  # the last shows no object
        truth[f"{i}.jpg"] = mask
        found[f"{i}.jpg"] = np.roll(mask, 1, axis=0) * (1 + i % 3)  # a cluster for each image
    return truth, found


@pytest.mark.parametrize(("label", "classes"), [(255, ()), (255, ("back", "thing")), (128, ())])
def test_masks_of_two_values_are_object_or_not(tmp_path: Path, label: int, classes: tuple[str, ...]) -> None:
    masks, found = draw_object_or_not()
    for listed in (tuple, lambda: list(tmp_path.glob("*.png"))):
        files = save_truth(tmp_path, {name: mask * label for name, mask in masks.items()}, classes)
        truth = Truth(tmp_path, classes, files.files, files.read, listed)
        got = scored(found.items(), truth, 3, bootstrap=20)
        assert got.object_or_not and got.classes == (classes or ("background", "object"))
        assert got.foreground_iou == got.mean_foreground_iou == 30 / 42
        background = (400 - 108 - 18) / (400 - 108 + 18)
        assert got.hungarian == got.majority and got.hungarian.per_class == (background, 30 / 42)
        assert got.hungarian.assignment == (0, 1, 1, 1) and got.hungarian.pixel_accuracy == 1 - 36 / 400
        assert got.class_shares == pytest.approx((0.73, 0.36))
        low, high = got.intervals["hungarian"]["miou"]
        assert low <= got.hungarian.miou <= high
        assert Evaluation.from_json(got.to_json()) == got
    console = Console(width=100, record=True)
    console.print(format_table(got))
    text = console.export_text()
    assert "foreground IoU, pooled" in text and "71.4" in text and "only object from background" in text
    counts = count_pairs(list(found), found.__getitem__, truth, 3, CPU)
    with pytest.raises(InputError, match="leave --fit-on out"):
        evaluate(counts, counts)


def test_void_stays_void_where_any_mask_of_the_folder_has_classes(tmp_path: Path) -> None:
    masks, found = draw_object_or_not()
    truth = save_truth(tmp_path, {name: mask * 255 for name, mask in masks.items()} | {"x.jpg": np.array([[0, 2]])})
    with_classes = scored([*found.items(), ("x.jpg", np.array([[0, 1]]))], truth, 3)
    assert not with_classes.object_or_not and with_classes.classes == ("background", "class 1", "class 2")
    assert with_classes.list_absent_classes() == ["class 1"]
    alone = Truth(tmp_path, (), {n: truth.files[n] for n in found}, truth.read, lambda: [truth.files["x.jpg"]])
    with pytest.raises(InputError, match="No mask of the 4 scored images"):
        scored(found.items(), alone, 3)


def test_masks_of_0_and_1_are_one_class(tmp_path: Path) -> None:
    masks, found = draw_object_or_not()
    got = scored(found.items(), save_truth(tmp_path, masks), 3)
    assert not got.object_or_not and got.classes == ("background", "class 1") and got.foreground_iou == 30 / 42


def test_the_table_shows_both_matchings_in_percent(tmp_path: Path) -> None:
    truth = save_truth(tmp_path, {"a.jpg": np.array([[0, 0, 0, 1, 1]])}, ("background", "cat", "[red]"))
    truth.files["b.jpg"] = tmp_path / "b.jpg.png"
    found = scored([("a.jpg", np.array([[0, 0, 0, 1, 2]]))], truth, 2)
    console = Console(width=100, record=True)
    console.print(format_table(found))
    rows = {}
    for line in console.export_text().splitlines():
        cells = [cell.strip() for cell in line.replace("┃", "│").split("│") if cell.strip()]
        if len(cells) == 3:
            rows[cells[0]] = cells[1:]
    assert rows == {
        "class": ["Hungarian", "majority"],
        "background": ["100.0", "100.0"],
        "cat": ["50.0", "100.0"],
        "[red]": ["-", "-"],
        "mIoU": ["75.0", "100.0"],
        "pixel accuracy": ["80.0", "100.0"],
        "classes of IoU >= 20%": ["2", "2"],
        "mean over these": ["75.0", "100.0"],
        "classes of IoU > 0": ["2", "2"],
        "mean over those above 0": ["75.0", "100.0"],
        "foreground IoU, pooled": ["100.0", "100.0"],
        "foreground IoU, mean of images": ["100.0", "100.0"],
    }


@needs_msrc14
def test_msrc14_equals_the_plain_reference_with_as_many_clusters_as_classes() -> None:
    """Class maps of 14 clusters: the truth, moved and with its classes partly exchanged, image by image."""
    names = [f"{line}.jpg" for line in (MSRC14 / "objects.txt").read_text().split()[::10]]
    truth = read_truth(MSRC14 / "SegmentationClass", MSRC14 / "classes.txt", names)
    rng = np.random.default_rng(0)
    predicted = {}
    for name in names:
        labels = np.roll(truth.read(name), 9, axis=0) % 255
        exchanged = np.arange(256)
        exchanged[rng.integers(0, 15, 3)] = rng.integers(0, 15, 3)
        predicted[name] = exchanged[labels].astype(np.uint8)
    found = scored(predicted.items(), truth, 14)

    flat_predicted = np.concatenate([predicted[name].ravel() for name in names])
    flat_truth = np.concatenate([truth.read(name).ravel() for name in names])
    case = (flat_predicted, flat_truth, 14, 14)
    ious = reference_ious(*case)
    rows, columns = linear_sum_assignment(ious, maximize=True)
    for matched, classes in ((found.hungarian, columns.tolist()), (found.majority, reference_majority(*case))):
        assert rows.tolist() == list(range(15))
        assert [-1 if c is None else c for c in matched.assignment] == [
            -1 if ious[row, c] == 0 else c for row, c in enumerate(classes)
        ]
        assert_score_is(matched, reference_score(flat_predicted, flat_truth, classes, 14))
    assert 0.3 < found.hungarian.miou < 0.95


def test_a_matching_fitted_on_other_images_is_applied_as_it_is(tmp_path: Path) -> None:
    """The other images exchange clusters 1 and 2, so the fitted matching is wrong here, and the score says so."""
    here, other = np.array([[0, 1, 1, 2, 2, 2]]), np.array([[0, 2, 2, 1, 1, 1]])
    labels = np.array([[0, 1, 1, 2, 2, 2]])
    truth = save_truth(tmp_path, {"a.jpg": labels, "b.jpg": labels}, ("background", "cat", "dog"))
    counts = [
        count_pairs([name], lambda _, m=m: m, truth, 3, CPU, keep_images=True)
        for name, m in (("a.jpg", here), ("b.jpg", other))
    ]
    assert evaluate(counts[0]).hungarian.miou == 1.0 and evaluate(counts[0]).fitted_on == 0
    fitted = evaluate(counts[0], counts[1], bootstrap=5)
    assert fitted.fitted_on == 1 and fitted.images == 1
    for one in (fitted.hungarian, fitted.majority):
        assert one.assignment == (0, 2, 1, None) and one.per_class == (1.0, 0.0, 0.0)
    assert fitted.intervals["hungarian"]["miou"] == (1 / 3, 1 / 3)


def test_a_fitted_matching_without_class_names_covers_the_labels_of_both(tmp_path: Path) -> None:
    truth = save_truth(tmp_path, {"a.jpg": np.array([[0, 1]]), "b.jpg": np.array([[0, 4]])})
    counts = [count_pairs([name], lambda _: np.array([[0, 1]]), truth, 1, CPU) for name in truth.files]
    found = evaluate(*counts)
    assert len(found.classes) == 5 and found.hungarian.assignment == (0, 4)
    assert found.hungarian.per_class[:2] == (1.0, 0.0)


def test_the_counts_of_single_images_sum_to_the_whole_and_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = {f"{i}.jpg": rng.integers(0, 3, (30, 20)) + i % 3 for i in range(9)}
    truth = save_truth(tmp_path, masks, tuple(map(str, range(81))))
    counts = count_pairs(list(masks), lambda name: masks[name] % 4, truth, 80, CPU, workers=3, keep_images=True)
    assert counts.per_image is not None and counts.per_image.shape == (9, 81 * 81)
    np.testing.assert_array_equal(counts.per_image.sum(axis=0), counts.confusion.ravel())
    of_third = confusion_matrix(masks["2.jpg"] % 4, masks["2.jpg"], 80, 80)
    np.testing.assert_array_equal(counts.per_image[[2]].toarray()[0], of_third.ravel())
    assert counts.per_image.nnz <= 9 * 3 * 4
    assert count_pairs(list(masks), lambda name: masks[name], truth, 80, CPU).per_image is None


def test_the_bootstrap_interval_is_that_of_drawing_images_again(tmp_path: Path) -> None:
    """Against plain resampling of the maps themselves, with the same draws."""
    rng = np.random.default_rng(3)
    masks = {f"{i:02d}.jpg": rng.integers(0, 4, (8, 8)) for i in range(12)}
    maps = {
        n: np.where(rng.random(m.shape) < 0.1 * int(n[:2]) / 2, rng.integers(0, 4, m.shape), m)
        for n, m in masks.items()
    }
    truth = save_truth(tmp_path, masks, ("background", "a", "b", "c"))
    found = scored(maps.items(), truth, 3, bootstrap=200, seed=7)
    names, draws = list(masks), np.random.default_rng(7)
    mious = []
    for _ in range(200):
        drawn = [names[i] for i in draws.integers(0, 12, 12)]
        confusion = confusion_of(np.stack([maps[n] for n in drawn]), np.stack([masks[n] for n in drawn]), 3, 3)
        mious.append(score(confusion, match_hungarian(confusion)).miou)
    low, high = found.intervals["hungarian"]["miou"]
    assert (low, high) == (np.quantile(mious, 0.025), np.quantile(mious, 0.975))
    assert low < found.hungarian.miou < high
    assert scored(maps.items(), truth, 3, bootstrap=200, seed=7) == found
    assert scored(maps.items(), truth, 3, bootstrap=200, seed=8).intervals != found.intervals
    console = Console(width=100, record=True)
    console.print(format_table(found))
    assert f"({100 * low:.1f} - {100 * high:.1f})" in console.export_text()


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Peak of what NumPy and Python hold while counting few and many images, read anew each time."""
    labels = np.random.default_rng(0).integers(0, 5, (300, 300)).astype(np.uint8)
    files = {f"{i}.jpg": tmp_path / "a.png" for i in range(400)}
    truth = Truth(tmp_path, tuple("abcde"), files, lambda name: labels.copy())

    def peak(count: int) -> int:
        tracemalloc.start()
        count_pairs(list(files)[:count], lambda name: labels.copy(), truth, 4, CPU, workers=2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # Two threads count at a time, each with the pairs of its image in int64; all 400 images would take 72 MB.
    assert peak(400) < 30 * labels.nbytes
