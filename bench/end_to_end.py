"""The whole pipeline from photographs to masks, stage by stage, beside a plain script on known libraries.

    OMP_NUM_THREADS=2 python -m bench.end_to_end --data ../shared/data/msrc14

`--data`: JPEGImages/, SegmentationClassBG/ (void counted as background), classes.txt and objects.txt (the images to
use), as for bench.paper. Each side runs in a process of its own, files and all, from nothing: fastcomus with the preset
`offline` as it is, teaching its detector included, without reports and the first look before it, and
bench/plain_recipe.py with the same encoder, number of clusters, epochs and batches. Mean IoU is of Hungarian matching
over all classes and background.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness


def main() -> None:
    parser = harness.make_parser(__doc__, "end_to_end", data=None, count=0, threads=os.cpu_count() or 1)
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=list(SIDES))
    arguments = parser.parse_args()
    names = (arguments.data / "objects.txt").read_text().split()
    names = names[:: max(1, len(names) // arguments.count)] if arguments.count else names
    stored = harness.read_json(arguments.json)
    stored = {**harness.describe_run("cpu", "torchvision", "timm", "scikit-image"), "sides": stored.get("sides", {})}
    for side in arguments.sides:
        found = harness.run_apart(SIDES[side], arguments.data, names, threads=arguments.threads)
        stored["sides"][side] = {"images": len(names), **found}
        harness.write_json(arguments.json, stored)
    for side, found in stored["sides"].items():
        harness.print_table(
            f"{side}: {found['images']} photographs, mean IoU {found['mean_iou']:.1f}, peak {found['peak_gb']:.2f} GB",
            [{"stage": stage, **times} for stage, times in found["stages"].items()],
        )


def run_fastcomus(data: Path, names: list[str]) -> harness.Row:
    """The stages of `fastcomus run`, each timed, and the scores of the last network."""
    from fastcomus.run.run import Run

    with tempfile.TemporaryDirectory() as scratch:
        files = [data / "JPEGImages" / f"{name}.jpg" for name in names]
        images = harness.link_images(files, Path(scratch, "images"))
        run, stages = Run(Path(scratch, "run"), preset="offline"), Stages()
        stages.time("objects and embeddings", run.embed, images)
        stages.time("clusters", lambda: run.cluster(k=count_classes(data)))
        stages.time("training and labelling", run.train)
        scores = run.evaluate(data / "SegmentationClassBG", data / "classes.txt")
        return stages.describe(scores.hungarian.miou)


def run_plain(data: Path, names: list[str]) -> harness.Row:
    """The stages of bench/plain_recipe.py, each timed, and the scores of its network."""
    from bench import plain_recipe
    from fastcomus.backends.choose import select
    from fastcomus.evaluation.confusion import compute_confusion_matrix
    from fastcomus.evaluation.matching import match_hungarian, score
    from fastcomus.evaluation.truth.truth import read_mask

    k, stages = count_classes(data), Stages()

    def find() -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        images = plain_recipe.read_images([data / "JPEGImages" / f"{name}.jpg" for name in names])
        masks = [plain_recipe.find_object(image) for image in images]
        return images, masks, plain_recipe.embed_objects(images, masks)

    images, masks, rows = stages.time("objects and embeddings", find)
    labels, is_core = stages.time("clusters", plain_recipe.cluster_objects, rows, k)

    def train_and_label() -> list[np.ndarray]:
        maps = [(mask * one).astype(np.uint8) for mask, one in zip(masks, labels, strict=True)]
        core = np.flatnonzero(is_core)
        network = plain_recipe.train_network([images[i] for i in core], [maps[i] for i in core], k)
        return list(plain_recipe.label_images(network, images))

    found = stages.time("training and labelling", train_and_label)
    truths = [read_mask(data / "SegmentationClassBG" / f"{name}.png") for name in names]
    backend = select("cpu")
    confusion = sum(compute_confusion_matrix(*pair, k, backend) for pair in zip(found, truths, strict=True))
    assert isinstance(confusion, np.ndarray)
    confusion = confusion[:, : k + 1]
    return stages.describe(score(confusion, match_hungarian(confusion)).miou)


class Stages:
    """Times of stages, in order."""

    def __init__(self) -> None:
        self.times: dict[str, harness.Row] = {}

    def time(self, stage: str, work: Callable[..., Any], *given: Any) -> Any:
        taken = harness.time_once(work, *given)
        self.times[stage] = {"wall_s": taken.wall_s[0], "cpu_s": taken.cpu_s[0]}
        harness.print_progress({"stage": stage, **self.times[stage]})
        return taken.result

    def describe(self, mean_iou: float) -> harness.Row:
        whole = {unit: sum(one[unit] for one in self.times.values()) for unit in ("wall_s", "cpu_s")}
        return {
            "stages": {**self.times, "in all": whole},
            "mean_iou": 100 * mean_iou,
            "peak_gb": harness.measure_peak_mib() / 1024,
        }


def count_classes(data: Path) -> int:
    """Without background."""
    return len((data / "classes.txt").read_text().split()) - 1


SIDES: dict[str, Callable[[Path, list[str]], harness.Row]] = {"fastcomus": run_fastcomus, "plain script": run_plain}


if __name__ == "__main__":
    main()
