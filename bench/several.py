"""One object per photograph against several: average best overlap, and the mIoU of clusters.

    python -m bench.several --data DIR/JPEGImages --masks DIR/SegmentationClass --one-each DIR

`--masks`: class maps (PNG named like the images; 0 background, 255 void). Average best overlap: of every region of a
class, connected and of at least 1 % of the image, the largest IoU of any object found there, averaged over regions. The
scenes of the demo show one to three classes each, an object of each; `--one-each` has JPEGImages/,
SegmentationClassBG/, classes.txt and objects.txt (the images to take), mostly one object each. Their clusters, as many
as classes, are scored as `evaluate` does (Hungarian, without training). Objects are found by `--saliency`.
`evidence` is that of the verdict of `--objects several` (`fastcomus/objects/verdict.py`).
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from bench import harness
from fastcomus.cli.demo.scenes import CLASS_NAMES, make_scenes
from fastcomus.run.run import Run

LEAST_SHARE = 0.01  # of the image, of a region
CHOICES = ("one", "several", "always-several")
SCENES = (1, 2, 3)  # classes of each


def main() -> None:
    parser = harness.make_parser(__doc__, "several", data=None, device="auto", seed=0, count=0)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--saliency", default="three-priors")
    parser.add_argument("--preset", default="offline")
    parser.add_argument("--scenes", type=int, default=64, help="scenes of the demo with one class, two and three")
    parser.add_argument("--one-each", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    files = sorted(file for file in arguments.data.iterdir() if (arguments.masks / f"{file.stem}.png").exists())
    rows: list[harness.Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        links = harness.link_images(files[: arguments.count or None], Path(scratch) / "images")
        sets = {f"scenes_of_{classes}": make_scene_set(Path(scratch), classes, arguments) for classes in SCENES}
        if arguments.one_each:
            sets["one_each"] = link_one_each(Path(scratch), arguments.one_each)
        for objects in CHOICES:
            row = {"objects": objects, **measure_overlaps(links, Path(scratch) / objects, objects, arguments)}
            for name, one in sets.items():
                run = make_run(Path(scratch) / f"{objects}-{name}", objects, arguments)
                run.embed(one.images)
                run.cluster(k=one.k)
                row[f"miou_{name}"] = run.evaluate(one.truth, one.classes, 0).hungarian.miou
                row |= read_evidence(run, name)
            rows.append(row)
            harness.print_progress(rows[-1])
    numbers = {"images": len(files), "scenes": arguments.scenes, "rows": rows}
    harness.finish(arguments, "Several objects", numbers, "timm")


@dataclass(frozen=True)
class LabelledImages:
    """A folder of images, their class maps, the names of the classes, and how many clusters are sought."""

    images: Path
    truth: Path
    classes: Path
    k: int


def make_scene_set(scratch: Path, classes: int, arguments: argparse.Namespace) -> LabelledImages:
    scenes = scratch / f"scenes-{classes}"
    make_scenes(scenes, arguments.scenes, arguments.seed, objects=classes)
    return LabelledImages(scenes / "images", scenes / "truth", scenes / "classes.txt", len(CLASS_NAMES) - 1)


def link_one_each(scratch: Path, data: Path) -> LabelledImages:
    names = (data / "objects.txt").read_text().split()
    images = harness.link_images([data / f"JPEGImages/{name}.jpg" for name in names], scratch / "one-each")
    k = len((data / "classes.txt").read_text().split()) - 1
    return LabelledImages(images, data / "SegmentationClassBG", data / "classes.txt", k)


def read_evidence(run: Run, name: str) -> harness.Row:
    """Read the evidence for several objects in a run folder, if photographs were judged."""
    files = sorted(run.folder.path.glob("objects/verdict-*.json"))
    return {f"evidence_{name}": json.loads(file.read_text())["evidence"] for file in files}


def make_run(folder: Path, objects: str, arguments: argparse.Namespace) -> Run:
    settings = {"embed": {"objects": objects, "saliency": arguments.saliency}}
    return Run(folder, preset=arguments.preset, seed=arguments.seed, device=arguments.device, settings=settings)


def measure_overlaps(images: Path, folder: Path, objects: str, arguments: argparse.Namespace) -> harness.Row:
    """Average best overlap, foreground IoU (mean of images), objects and processor seconds an image."""
    run = make_run(folder, objects, arguments)
    times = harness.time_once(run.embed, images)
    found: dict[str, list[np.ndarray]] = {file.name: [] for file in images.iterdir()}
    for row in run.objects().select(["image", "width", "height", "mask"]).to_pylist():
        encoded = {"size": [row["height"], row["width"]], "counts": row["mask"]}
        found[row["image"]].append(coco_mask.decode(encoded).astype(bool))
    overlaps, ious = [], []
    for name, masks in found.items():
        labels = np.asarray(Image.open(arguments.masks / f"{Path(name).stem}.png"))
        overlaps += [max((compute_iou(mask, one) for mask in masks), default=0.0) for one in list_regions(labels)]
        ious.append(compute_iou(np.any(masks, axis=0) if masks else np.zeros(labels.shape, bool), is_object(labels)))
    return {
        **read_evidence(run, "data"),
        "average_best_overlap": float(np.mean(overlaps)),
        "regions": len(overlaps),
        "foreground_iou": float(np.mean(ious)),
        "objects_per_image": len(run.objects()) / len(found),
        "cpu_s_per_image": times.cpu_s[0] / len(found),
    }


def is_object(labels: np.ndarray) -> np.ndarray:
    return np.asarray((labels > 0) & (labels < 255))


def list_regions(labels: np.ndarray) -> Sequence[np.ndarray]:
    """The connected parts (H, W) bool of each class that are large enough."""
    regions = []
    for label in np.unique(labels[is_object(labels)]):
        parts, count = ndimage.label(labels == label)
        regions += [parts == number for number in range(1, count + 1)]
    return [one for one in regions if one.mean() >= LEAST_SHARE]


def compute_iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


if __name__ == "__main__":
    main()
