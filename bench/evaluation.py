"""Counting and matching against one pass over all pixels per pair of labels, on maps as many as in VOC and COCO val.

    python bench/evaluation.py

The reference is what evaluation scripts for clusters do: for every cluster and every class, the pixels that both, only
one and only the other have, each a sum over boolean arrays of all pixels. It works on an equal share of the images (the
first --reference-images), its matching must be equal to ours on these, to the last digit, before anything is timed, and
its time is multiplied up to all images, as it grows in proportion. Ours runs on all images, in a process of its own,
which tells its peak memory. Maps are in memory on both sides: reading files is not what is compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from fastcomus.backends.choose import select
from fastcomus.evaluation.class_maps import PairCounts, count_pairs, evaluate
from fastcomus.evaluation.truth.truth import VOID, Truth

SIZES = {"VOC val": (1449, 500, 375, 21), "COCO val": (5000, 640, 480, 81)}
DISTINCT = 64  # maps that differ; every image is one of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-images", type=int, default=24, help="images that the reference works on")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of ours, after one to warm up")
    parser.add_argument("--workers", type=int, default=1, help="threads of ours; the reference has one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("bench/results/evaluation.json"))
    parser.add_argument("--one-size", help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.one_size:
        print(json.dumps(measure_ours(arguments.one_size, arguments.repeats, arguments.workers, arguments.device)))
        return
    rows = []
    for name in SIZES:
        slow = measure_reference(name, arguments.reference_images)
        line = [sys.executable, __file__, "--one-size", name, "--repeats", str(arguments.repeats)]
        line += ["--workers", str(arguments.workers), "--device", arguments.device]
        fast = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rows.append({"size": name, **slow, **fast, "ratio": slow["reference_s"] / fast["median_s"]})
        Console(stderr=True).print(rows[-1])
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    Console(width=140).print(build_table(rows, arguments.workers))


def measure_ours(name: str, repeats: int, workers: int, device: str) -> dict[str, Any]:
    """Seconds of counting all images and matching both ways, median and spread; peak memory of the whole process."""
    count, width, height, labels = SIZES[name]
    maps = Maps(count, width, height, labels)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        evaluate(count_all_pairs(maps, list(maps.names), workers, device))
        times.append(time.perf_counter() - started)
    times = times[1:]
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "median_s": statistics.median(times),
        "fastest_s": min(times),
        "slowest_s": max(times),
        "peak_mib": peak_mib,
    }


def measure_reference(name: str, images: int) -> dict[str, Any]:
    """Seconds of the reference, for all images of that size; AssertionError unless its result is ours."""
    count, width, height, labels = SIZES[name]
    maps = Maps(count, width, height, labels)
    chosen = maps.names[:images]
    predicted = np.concatenate([maps.get_predicted(one).ravel() for one in chosen])
    truth = np.concatenate([maps.get_truth(one).ravel() for one in chosen])
    started = time.perf_counter()
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
    per_class = [ious[clusters[classes == label], label].sum() for label in range(labels)]
    elapsed_s = time.perf_counter() - started
    found = evaluate(count_all_pairs(maps, list(chosen), 1, "cpu")).hungarian
    present = np.isin(np.arange(labels), truth)
    assert [iou for iou in found.per_class if iou == iou] == [per_class[i] for i in np.flatnonzero(present)], (
        "the two give different IoU"
    )
    return {"reference_s": elapsed_s * count / images, "reference_images": images, "images": count}


def count_all_pairs(maps: Maps, names: list[str], workers: int, device: str) -> PairCounts:
    classes = tuple(map(str, range(maps.labels)))
    truth = Truth(Path("made"), classes, dict.fromkeys(maps.names, Path("made")), maps.get_truth)
    return count_pairs(names, maps.get_predicted, truth, maps.labels - 1, select(device), workers=workers)


class Maps:
    """Class maps and truth as if read from files."""

    def __init__(self, count: int, width: int, height: int, labels: int) -> None:
        self.names = tuple(map(str, range(count)))
        self.labels = labels
        rng = np.random.default_rng(0)
        self._truth, self._predicted = [], []
        for _ in range(DISTINCT):
            # As in photographs: mostly background, a few classes in large regions, an outline of void.
            coarse = np.where(rng.random((9, 12)) < 0.6, 0, rng.choice(labels, 3)[rng.integers(0, 3, (9, 12))])
            regions = np.asarray(
                Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
            )
            truth = regions.copy()
            truth[:, 1:][regions[:, 1:] != regions[:, :-1]] = VOID
            wrong = rng.random((height // 25, width // 25)) < 0.3
            where = np.asarray(Image.fromarray(wrong).resize((width, height), Image.Resampling.NEAREST))
            other = np.full_like(regions, rng.integers(0, labels))
            self._truth.append(truth)
            self._predicted.append(np.where(where, other, (regions + 1) % labels).astype(np.uint8))

    def get_truth(self, name: str) -> np.ndarray:
        return self._truth[int(name) % DISTINCT]

    def get_predicted(self, name: str) -> np.ndarray:
        return self._predicted[int(name) % DISTINCT]


def build_table(rows: list[dict[str, Any]], workers: int) -> Table:
    made = Table(title=f"Matching clusters to classes, {workers} thread(s) against one")
    for column in (
        "size",
        "images",
        "a pass per pair, s",
        "fastcomus, s",
        "fastest - slowest",
        "times faster",
        "peak MiB",
    ):
        made.add_column(column, justify="left" if column == "size" else "right")
    for row in rows:
        spread = f"{row['fastest_s']:.2f} - {row['slowest_s']:.2f}"
        numbers = (f"{row['reference_s']:.0f}", f"{row['median_s']:.2f}", spread, f"{row['ratio']:.0f}")
        made.add_row(row["size"], str(row["images"]), *numbers, f"{row['peak_mib']:.0f}")
    made.caption = f"A pass per pair: measured on {rows[0]['reference_images']} images, equal results, multiplied up."
    return made


if __name__ == "__main__":
    main()
