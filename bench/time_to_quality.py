"""Quality against time of self-training: mean IoU and CPU-seconds by epochs and size of the training crops.

    OMP_NUM_THREADS=1 python -m bench.time_to_quality --data ../shared/data/msrc14

`--data`: JPEGImages/, SegmentationClassBG/ (void counted as background), classes.txt and objects.txt (the images to
use), as for bench.paper. The images are embedded and clustered once, in `--runs`, with the preset `offline`; each cell
trains and labels all of them in a folder of its own. CPU-seconds are those of training and labelling, files and all.
What is measured is kept in `--json`, and not measured again.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from bench import harness
from fastcomus.run.run import Run


def main() -> None:
    parser = harness.make_parser(__doc__, "time_to_quality", data=None)
    parser.add_argument("--runs", type=Path, default=Path("time-to-quality"), help="where the run folders go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256], help="sides of training crops, in pixels")
    arguments = parser.parse_args()
    names = (arguments.data / "objects.txt").read_text().split()
    files = [arguments.data / "JPEGImages" / f"{name}.jpg" for name in names]
    images = harness.link_images(files, arguments.runs / "images")
    clustered = Run(arguments.runs / "clustered", preset="offline")
    clustered.embed(images)
    clustered.cluster(k=len((arguments.data / "classes.txt").read_text().split()) - 1)
    cells = harness.read_json(arguments.json).get("cells", [])
    for seed in arguments.seeds:
        for size in arguments.sizes:
            for epochs in arguments.epochs:
                cell = {"size": size, "epochs": epochs, "seed": seed}
                if not any(cell.items() <= one.items() for one in cells):
                    found = measure(clustered.folder.path, arguments.runs / "cell", arguments.data, cell)
                    cells.append({**cell, **found})
                    harness.print_progress(cells[-1])
                    harness.write_json(arguments.json, {**harness.describe_run("cpu", "openvino"), "cells": cells})
    harness.print_table(f"Training and labelling {len(names)} photographs", summarise(cells))


def measure(clustered: Path, folder: Path, data: Path, cell: harness.Row) -> harness.Row:
    """Mean IoU in percent of iterations 0 and 1, and seconds of the latter."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(clustered, folder)
    run = Run(folder, seed=cell["seed"], settings={"train": {"epochs": cell["epochs"], "train_size": cell["size"]}})
    taken = harness.time_once(run.train)
    scores = [run.evaluate(data / "SegmentationClassBG", data / "classes.txt", at).hungarian for at in (0, 1)]
    return {"cpu_s": taken.cpu_s[0], "wall_s": taken.wall_s[0], "mean_iou": [100 * one.miou for one in scores]}


def summarise(cells: list[harness.Row]) -> list[harness.Row]:
    """A row per size and number of epochs: means over the seeds."""
    rows = []
    for size, epochs in sorted({(cell["size"], cell["epochs"]) for cell in cells}):
        same = [cell for cell in cells if (cell["size"], cell["epochs"]) == (size, epochs)]
        row = {"size": size, "epochs": epochs, "seeds": len(same), "CPU s": statistics.mean(c["cpu_s"] for c in same)}
        for at, name in enumerate(("masks of clusters", "network")):
            scores = [cell["mean_iou"][at] for cell in same]
            row |= {name: statistics.mean(scores), f"{name}, ±": statistics.pstdev(scores)}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
