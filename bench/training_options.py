"""What each option of self-training changes: mean IoU of every iteration, over several seeds, a row per option.

    python bench/training_options.py --data ../shared/data/msrc14

`--data` as for bench/quality.py. The images are embedded once; each option is laid over the offline preset and trained
with each seed in a run folder of its own under `--runs`, gone on with when there. Mean IoU counts void as background.
The gain is that of an option's last iteration over iteration 0, which all options of a seed share.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fastcomus.pipeline import Run
from fastcomus.progress import progress_bar

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "preset": {},
    "constant learning rate": {"train": {"schedule": "constant"}},
    "one size, no mirrored image": {"predict": {"scales": "1", "flip": False}},
    "weight average 0.98": {"train": {"weight_average": 0.98}},
    "confidence of at least 0.7": {"train": {"min_confidence": 0.7}},
    "four iterations": {"train": {"iterations": 4}},
    "own saliency network": {"embed": {"saliency": "own"}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--runs", type=Path, default=Path("training-options"), help="where the run folders go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="NAME")
    parser.add_argument("--json", type=Path, default=Path("bench/results/training_options.json"))
    arguments = parser.parse_args()
    images = linked_images(arguments.data, arguments.runs / "images")
    numbers: dict[str, list[list[float]]] = {}
    jobs = [(seed, option) for seed in range(arguments.seeds) for option in arguments.options]
    with progress_bar("trainings", len(jobs), "runs") as advance:
        for seed, option in jobs:
            numbers.setdefault(option, []).append(mean_ious(arguments.data, arguments.runs, images, option, seed))
            advance(1)
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console(width=120).print(table(numbers))


def linked_images(data: Path, folder: Path) -> Path:
    """A folder of links to the images of objects.txt."""
    if not folder.exists():
        making = folder.with_name("images.new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for name in (data / "objects.txt").read_text().split():
            (making / f"{name}.jpg").symlink_to((data / "JPEGImages" / f"{name}.jpg").resolve())
        making.rename(folder)
    return folder


def mean_ious(data: Path, runs: Path, images: Path, option: str, seed: int) -> list[float]:
    """Mean IoU in percent of iterations 0, 1, ... of one run, trained as far as it is not."""
    classes = data / "classes.txt"
    settings = OPTIONS[option]
    own = settings.get("embed", {}).get("saliency") == "own"
    embedded = runs / ("embedded-own" if own else "embedded")
    with_saliency = {"saliency": str(own_saliency(runs, images))} if own else {}
    Run(embedded, preset="offline").embed(images, **with_saliency)
    folder = runs / f"{option.replace(' ', '-').replace(',', '')}-{seed}"
    if not folder.exists():
        copied = folder.with_name("copied")
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(embedded, copied)
        copied.rename(folder)
    run = Run(folder, seed=seed, settings={"cluster": {"k": len(classes.read_text().split()) - 1}})
    run.configure({stage: values for stage, values in settings.items() if stage != "embed"})
    run.cluster()
    run.train()
    truth = data / "SegmentationClassBG"
    return [100 * run.evaluate(truth, classes, iteration).hungarian.miou for iteration in run._iterations()]


def own_saliency(runs: Path, images: Path) -> Path:
    """The checkpoint of a network of one's own, trained on the same images without masks."""
    return Run(runs / "own-saliency", preset="offline").train_saliency(images)


def table(numbers: dict[str, list[list[float]]]) -> Table:
    made = Table("option", "seeds", "iteration 0", "iterations after", "gain of the last", title="Mean IoU, percent")
    for option, runs in numbers.items():
        by_iteration = list(zip(*runs, strict=True))
        gains = [scores[-1] - scores[0] for scores in runs]
        after = ", ".join(spread(scores) for scores in by_iteration[1:])
        made.add_row(option, str(len(runs)), spread(by_iteration[0]), after, spread(gains))
    return made


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.mean(values):.1f} ± {statistics.pstdev(values):.1f}"


if __name__ == "__main__":
    main()
