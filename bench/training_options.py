"""What each option of self-training changes: mean IoU of every iteration, over several seeds, a row per option.

    python bench/training_options.py --data ../shared/data/msrc14

`--data` as for bench/quality.py. The images are embedded once; each option is laid over the offline preset and trained
with each seed in a run folder of its own under `--runs`, gone on with when there. What is measured is kept in `--json`
and not measured again while the settings are the same. Mean IoU counts void as background. The gain is that of an
option's last iteration over iteration 0; beside it stands what the option adds to the same iteration of the preset,
over the seeds that both have. Options that act within one training are measured on one iteration.
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

from fastcomus.config import preset_config, to_dict
from fastcomus.pipeline import Run
from fastcomus.progress import progress_bar
from fastcomus.run_folder import fingerprint

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "preset": {},
    "constant learning rate": {"train": {"schedule": "constant", "iterations": 1}},
    "no average of weights": {"train": {"weight_average": 0.0, "iterations": 1}},
    "no first masks in labels": {"train": {"mask_weight": 0.0}},
    "one size, no mirrored image": {"predict": {"scales": "1", "flip": False}, "train": {"iterations": 1}},
    "confidence of at least 0.7": {"train": {"min_confidence": 0.7}},
    "until masks agree on 0.9": {"train": {"iterations": 4, "stop_agreement": 0.9}},
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
    measured = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    measured = {option: runs for option, runs in measured.items() if runs["settings"] == settings_of(option)}
    jobs = [(str(seed), option) for seed in range(arguments.seeds) for option in arguments.options]
    jobs = [(seed, option) for seed, option in jobs if seed not in measured.get(option, {"seeds": {}})["seeds"]]
    with progress_bar("trainings", len(jobs), "runs") as advance:
        for seed, option in jobs:
            scores = mean_ious(arguments.data, arguments.runs, images, option, int(seed))
            measured.setdefault(option, {"settings": settings_of(option), "seeds": {}})["seeds"][seed] = scores
            advance(1)
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(measured, indent=2) + "\n")
    Console(width=120).print(table({option: measured[option]["seeds"] for option in OPTIONS if option in measured}))


def settings_of(option: str) -> str:
    """A fingerprint of all settings that an option's numbers come from."""
    return fingerprint(preset=to_dict(preset_config("offline")), option=OPTIONS[option])


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
        of_preset = runs / f"preset-{seed}"  # what it has trained and an option does not change is not trained again
        start = of_preset if of_preset.exists() and not own else embedded
        copied = folder.with_name("copied")
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(start, copied)
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


def table(measured: dict[str, dict[str, list[float]]]) -> Table:
    """`measured`: option -> seed -> mean IoU of iterations 0, 1, ..."""
    columns = ("option", "seeds", "iteration 0", "iterations after", "gain of the last", "over the preset")
    made = Table(*columns, title="Mean IoU, percent")
    preset = measured.get("preset", {})
    for option, runs in measured.items():
        by_iteration = list(zip(*runs.values(), strict=True))
        gains = [scores[-1] - scores[0] for scores in runs.values()]
        after = ", ".join(spread(scores) for scores in by_iteration[1:])
        added = [
            scores[-1] - preset[seed][len(scores) - 1]
            for seed, scores in runs.items()
            if len(scores) <= len(preset.get(seed, []))
        ]
        over = f"{statistics.mean(added):+.1f}" if added and option != "preset" else ""
        made.add_row(option, str(len(runs)), spread(by_iteration[0]), after, spread(gains), over)
    return made


def spread(values: Iterable[float]) -> str:
    values = list(values)
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.pstdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
