"""What each option of self-training changes: mean IoU of every iteration, over several seeds, a row per option.

    python -m bench.training_options --data ../shared/data/msrc14

`--data`: JPEGImages/, SegmentationClassBG/ (void counted as background), classes.txt and objects.txt (the images to
use), as for bench.paper. The images are embedded once; each option is trained with each seed in a run folder of
its own under `--runs`, gone on with when there, and what another has trained just so is not trained again. What is
measured is kept in `--json` and not measured again while the settings are the same. Mean IoU counts void as background;
the gain is that of an option's last iteration over iteration 0.

Labels of images seen at two sizes, and mirrored, take six times as long as those of one size. So one row is the
offline preset with one size, and options are laid over that: beside each stands what it adds to the same iteration
there, over the seeds that both have. Those that act within one training are measured on one iteration. A precision that
is left to the machine may change a last digit; give each kind of machine its own `--json`.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import harness
from fastcomus.progress import show_progress
from fastcomus.run.contents import list_iterations
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, to_dict
from fastcomus.store.sealed_json import compute_fingerprint

ONE_SIZE: dict[str, Any] = {"scales": "0.75", "flip": False}
BASE = "one size"  # what options are compared with
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "preset": {},
    "two sizes, mirrored images": {"predict": {"scales": "0.75, 1.125", "flip": True}, "train": {"iterations": 1}},
    BASE: {"predict": ONE_SIZE},
    "constant learning rate": {"predict": ONE_SIZE, "train": {"schedule": "constant", "iterations": 1}},
    "no average of weights": {"predict": ONE_SIZE, "train": {"weight_average": 0.0, "iterations": 1}},
    "no first masks in labels": {"predict": ONE_SIZE, "train": {"mask_weight": 0.0}},
    "confidence of at least 0.7": {"predict": ONE_SIZE, "train": {"min_confidence": 0.7}},
    "until masks agree on 0.85": {"predict": ONE_SIZE, "train": {"iterations": 4, "stop_agreement": 0.85}},
    "own saliency network": {"predict": ONE_SIZE, "embed": {"saliency": "own"}},
}


def main() -> None:
    parser = harness.make_parser(__doc__, "training_options", data=None)
    parser.add_argument("--runs", type=Path, default=Path("training-options"), help="where the run folders go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="NAME")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    names = (arguments.data / "objects.txt").read_text().split()
    photographs = [arguments.data / "JPEGImages" / f"{name}.jpg" for name in names]
    images = harness.link_images(photographs, arguments.runs / "images")
    measured = harness.read_json(arguments.json)
    measured = {option: runs for option, runs in measured.items() if runs["settings"] == fingerprint_settings(option)}
    jobs = [(str(seed), option) for seed in range(arguments.seeds) for option in arguments.options]
    jobs = [(seed, option) for seed, option in jobs if seed not in measured.get(option, {"seeds": {}})["seeds"]]
    with show_progress("trainings", len(jobs), "runs") as advance:
        for seed, option in jobs:
            scores = measure_mean_ious(arguments.data, arguments.runs, images, option, int(seed))
            before = measured.get(option, {"settings": fingerprint_settings(option), "seeds": {}})
            seeds = {**before["seeds"], seed: scores}
            measured[option] = {**before, **harness.describe_run(), "seeds": seeds}
            advance(1)
            harness.write_json(arguments.json, measured)
    rows = summarise_options({option: measured[option]["seeds"] for option in OPTIONS if option in measured})
    harness.print_table("Mean IoU, percent", rows)


def fingerprint_settings(option: str) -> str:
    """A fingerprint of all settings that an option's numbers come from."""
    return compute_fingerprint(preset=to_dict(get_preset_config("offline")), option=OPTIONS[option])


def measure_mean_ious(data: Path, runs: Path, images: Path, option: str, seed: int) -> list[float]:
    """Mean IoU in percent of iterations 0, 1, ... of one run, trained as far as it is not."""
    classes = data / "classes.txt"
    settings = OPTIONS[option]
    own = settings.get("embed", {}).get("saliency") == "own"
    embedded = runs / ("embedded-own" if own else "embedded")
    checkpoint = Run(runs / "own-saliency", preset="offline").train_saliency(images) if own else None
    Run(embedded, preset="offline").embed(images, saliency=str(checkpoint) if own else "background-prior")
    folder = get_run_folder(runs, option, seed)
    if not folder.exists():
        trained = [get_run_folder(runs, other, seed) for other in (BASE, "preset") if not own]
        start = next((other for other in trained if other.exists()), embedded)
        copied = folder.with_name("copied")
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(start, copied)
        copied.rename(folder)
    k = len(classes.read_text().split()) - 1  # not background
    run = Run(folder, seed=seed, settings={"cluster": {"k": k}, "train": {"iterations": 2}})
    run.configure({stage: values for stage, values in settings.items() if stage != "embed"})
    run.cluster()
    run.train()
    truth = data / "SegmentationClassBG"
    return [100 * run.evaluate(truth, classes, iteration).hungarian.miou for iteration in list_iterations(run.folder)]


def get_run_folder(runs: Path, option: str, seed: int) -> Path:
    return runs / f"{option.replace(' ', '-').replace(',', '')}-{seed}"


def summarise_options(measured: dict[str, dict[str, list[float]]]) -> list[harness.Row]:
    """A row per option; `measured`: option -> seed -> mean IoU of iterations 0, 1, ..."""
    rows: list[harness.Row] = []
    base = measured.get(BASE, {})
    for option, runs in measured.items():
        by_iteration = list(zip(*runs.values(), strict=True))
        after = ", ".join(format_spread(scores) for scores in by_iteration[1:])
        row = {"option": option, "seeds": len(runs), "iteration 0": format_spread(by_iteration[0])}
        gain = format_spread(scores[-1] - scores[0] for scores in runs.values())
        row |= {"iterations after": after, "gain of the last": gain}
        last = {seed: min(len(scores), len(base.get(seed, []))) - 1 for seed, scores in runs.items()}
        added = [runs[seed][at] - base[seed][at] for seed, at in last.items() if at > 0 and option != BASE]
        rows.append({**row, f"over {BASE}": statistics.mean(added) if added else None})
    return rows


def format_spread(values: Iterable[float]) -> str:
    listed = list(values)
    return f"{statistics.mean(listed):.1f}" + (f" ± {statistics.pstdev(listed):.1f}" if len(listed) > 1 else "")


if __name__ == "__main__":
    main()
