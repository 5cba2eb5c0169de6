"""Matching clusters to classes on made class maps of VOC's and COCO's size, against a pass over all pixels per pair.

    python -m bench.evaluation

The reference computes the IoU of every pair of cluster and class from boolean arrays of all pixels, as the original
program does. It works on a few images, where its result must equal ours, and its seconds are multiplied up to all
images, as it grows in proportion. Ours runs on all images, in a process of its own, which tells its peak memory. Maps
are in memory on both sides: reading files is not what is compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.evaluation.class_maps import PairCounts, count_pairs, evaluate
from fastcomus.evaluation.truth.truth import VOID, Truth

SIZES = {"VOC val": (1449, 500, 375, 21), "COCO val": (5000, 640, 480, 81)}
DISTINCT = 64  # maps that differ; every image is one of them


def main() -> None:
    parser = harness.make_parser(__doc__, "evaluation", repeats=5, workers=1, device="cpu")
    parser.add_argument("--reference-images", type=int, default=24, help="images that the reference works on")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sizes:
        slow = measure_reference(name, arguments.reference_images)
        given = (name, arguments.repeats, arguments.workers, arguments.device)
        fast = harness.run_apart(measure_ours, *given)
        rows.append({"size": name, **slow, **fast, "ratio": slow["reference_s"] / fast["median_s"]})
        harness.print_progress(rows[-1])
    harness.finish(arguments, "Matching clusters to classes", {"rows": rows})


def measure_ours(name: str, repeats: int, workers: int, device: str) -> harness.Row:
    """Seconds of counting all images and matching both ways; peak memory of the whole process."""
    maps = Maps(*SIZES[name])
    sides = {"ours": lambda: evaluate(count_all_pairs(maps, maps.names, workers, device))}
    times = harness.time_sides(sides, repeats)["ours"]
    seconds = {"median_s": times.median_s, "fastest_s": min(times.wall_s), "slowest_s": max(times.wall_s)}
    return {**seconds, "peak_mib": harness.measure_peak_mib()}


def measure_reference(name: str, images: int) -> harness.Row:
    """Seconds of the reference, for all images of that size; AssertionError unless its result is ours."""
    maps = Maps(*SIZES[name])
    chosen = maps.names[:images]
    predicted = np.concatenate([maps.get_predicted(one).ravel() for one in chosen])
    truth = np.concatenate([maps.get_truth(one).ravel() for one in chosen])
    times = harness.time_once(match_by_passes, predicted, truth, maps.labels)
    found = evaluate(count_all_pairs(maps, chosen, 1, "cpu")).hungarian
    present = np.flatnonzero(np.isin(np.arange(maps.labels), truth))
    assert [iou for iou in found.per_class if iou == iou] == [times.result[i] for i in present], "IoU differs"
    count = len(maps.names)
    return {"reference_s": times.median_s * count / images, "reference_images": images, "images": count}


def match_by_passes(predicted: np.ndarray, truth: np.ndarray, labels: int) -> list[float]:
    pixels = truth != VOID
    predicted, truth = predicted[pixels], truth[pixels]
    ious = np.zeros((labels, labels))
    for cluster in range(labels):
        for label in range(labels):
            in_cluster, in_class = predicted == cluster, truth == label
            both = np.sum(in_cluster & in_class)
            only_cluster = np.sum(in_cluster & ~in_class)
            only_class = np.sum(~in_cluster & in_class)
            ious[cluster, label] = both / max(1, both + only_cluster + only_class)
    clusters, classes = linear_sum_assignment(ious, maximize=True)
    return [ious[clusters[classes == label], label].sum() for label in range(labels)]


def count_all_pairs(maps: Maps, names: tuple[str, ...], workers: int, device: str) -> PairCounts:
    classes = tuple(map(str, range(maps.labels)))
    truth = Truth(Path("made"), classes, dict.fromkeys(maps.names, Path("made")), maps.get_truth)
    return count_pairs(list(names), maps.get_predicted, truth, maps.labels - 1, select(device), workers=workers)


class Maps:
    """Class maps and truth as if read from files."""

    def __init__(self, count: int, width: int, height: int, labels: int) -> None:
        self.names, self.labels = tuple(map(str, range(count))), labels
        rng = np.random.default_rng(0)
        self._truth, self._predicted = [], []
        for _ in range(DISTINCT):
            # As in photographs: mostly background, a few classes in large regions, an outline of void.
            coarse = np.where(rng.random((9, 12)) < 0.6, 0, rng.choice(labels, 3)[rng.integers(0, 3, (9, 12))])
            regions = enlarge(coarse.astype(np.uint8), width, height)
            truth = regions.copy()
            truth[:, 1:][regions[:, 1:] != regions[:, :-1]] = VOID
            where = enlarge(rng.random((height // 25, width // 25)) < 0.3, width, height)
            other = np.full_like(regions, rng.integers(0, labels))
            self._truth.append(truth)
            self._predicted.append(np.where(where, other, (regions + 1) % labels).astype(np.uint8))

    def get_truth(self, name: str) -> np.ndarray:
        return self._truth[int(name) % DISTINCT]

    def get_predicted(self, name: str) -> np.ndarray:
        return self._predicted[int(name) % DISTINCT]


def enlarge(coarse: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))


if __name__ == "__main__":
    main()
