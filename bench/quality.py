"""Quality on photographs with masks: saliency, clusters, and every iteration of self-training, as one table.

    python bench/quality.py --data ../shared/data/msrc14

`--data`: JPEGImages/, Saliency/ (object or not), SegmentationClass/ (255 void), SegmentationClassBG/ (void counted as
background), classes.txt, objects.txt (the images to use). Prints a table and writes the numbers as JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.evaluation.image_labels import compute_object_accuracy
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.run.contents import list_iterations
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, with_settings
from fastcomus.store.embeddings import extract_embeddings
from fastcomus.store.objects_table import decode_mask

SEEDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--run", type=Path, default=Path("quality-run"), help="run folder, gone on with when there")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    parser.add_argument("--no-training", action="store_true", help="stop at iteration 0")
    parser.add_argument("--json", type=Path, default=Path("bench/results/quality.json"), help="where the numbers go")
    arguments = parser.parse_args()
    numbers = measure(arguments.data, arguments.run, arguments.seed, not arguments.no_training)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console().print(build_table(numbers))


def measure(data: Path, folder: Path, seed: int, with_training: bool) -> dict:
    """All numbers, in percent unless their name says otherwise."""
    names = (data / "objects.txt").read_text().split()
    classes = data / "classes.txt"
    k = len(classes.read_text().split()) - 1
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        images = _link_image_folder(data, names, folder.with_name(folder.name + "-images"), Path(scratch))
        run = Run(folder, preset="offline", seed=seed, device="cpu", settings={"cluster": {"k": k}})
        run.embed(images)
        objects = run.objects()
        numbers: dict = {"images": len(names), "k": k, "seed": seed, **_score_saliency(objects, data)}
        numbers.update(_score_clusterings(objects, data, k))
        run.cluster()
        if with_training:
            run.train()
        numbers["iterations"] = []
        for iteration in list_iterations(run.folder):
            ignored = run.evaluate(data / "SegmentationClass", classes, iteration)
            background = run.evaluate(data / "SegmentationClassBG", classes, iteration)
            numbers["iterations"].append(_list_scores(ignored, background))
    numbers["elapsed_s"] = time.perf_counter() - started
    return numbers


def build_table(numbers: dict) -> Table:
    made = Table("what", "measured", title=f"{numbers['images']} images, k = {numbers['k']}, seed {numbers['seed']}")
    made.add_row("saliency: mean foreground IoU", f"{numbers['saliency_foreground_iou']:.1f} %")
    for method in ("spectral", "kmeans"):
        accuracies = numbers[f"{method}_object_accuracy"]
        spread = f"{statistics.mean(accuracies):.1f} % +- {statistics.pstdev(accuracies):.1f}"
        made.add_row(f"{method}: object accuracy, {len(accuracies)} seeds", spread)
    for iteration, scores in enumerate(numbers["iterations"]):
        made.add_row(f"iteration {iteration}: mIoU, void ignored", f"{scores['miou_void_ignored']:.1f} %")
        made.add_row(f"iteration {iteration}: mIoU, void as background", f"{scores['miou_void_background']:.1f} %")
    made.caption = f"{numbers['elapsed_s']:.0f} s in all; the offline preset (its encoder was trained with labels)"
    return made


def _link_image_folder(data: Path, names: list[str], kept: Path, scratch: Path) -> Path:
    """A folder of links to the chosen images. It stays beside the run, so that a second call finds it unchanged."""
    if not kept.exists():
        linked = scratch / "images"
        linked.mkdir()
        for name in names:
            (linked / f"{name}.jpg").symlink_to((data / "JPEGImages" / f"{name}.jpg").resolve())
        shutil.move(linked, kept)
    return kept


def _score_saliency(objects, data: Path) -> dict:  # type: ignore[no-untyped-def]
    """Mean over images of the IoU of object-or-not; an image without an object scores 0."""
    ious = []
    rows = objects.select(["image", "mask", "height", "width"]).to_pylist()
    for row in rows:
        found = decode_mask(row["mask"], row["height"], row["width"])
        with Image.open(data / "Saliency" / f"{Path(row['image']).stem}.png") as picture:
            true = np.asarray(picture) > 0
        ious.append((found & true).sum() / (found | true).sum())
    return {"saliency_foreground_iou": 100 * sum(ious) / len((data / "objects.txt").read_text().split())}


def _score_clusterings(objects, data: Path, k: int) -> dict:  # type: ignore[no-untyped-def]
    """Object accuracy of spectral clustering and of k-means over several seeds."""
    truth = np.array([_find_main_class(data, name) for name in objects["image"].to_pylist()])
    rows = extract_embeddings(objects)
    accuracies: dict[str, list[float]] = {}
    for method in ("spectral", "kmeans"):
        config = with_settings(get_preset_config("offline"), {"cluster": {"k": k, "method": method}}).cluster
        found = [cluster_embeddings(rows, config, seed, select("cpu")).clusters.labels for seed in range(SEEDS)]
        accuracies[f"{method}_object_accuracy"] = [100 * compute_object_accuracy(labels, truth) for labels in found]
    return accuracies


def _find_main_class(data: Path, image: str) -> int:
    """The class of most object pixels."""
    mask = read_mask(data / "SegmentationClass" / f"{Path(image).stem}.png")
    return int(np.bincount(mask[(mask > 0) & (mask < 255)]).argmax())


def _list_scores(ignored: Evaluation, background: Evaluation) -> dict:
    return {
        "miou_void_ignored": 100 * ignored.hungarian.miou,
        "miou_void_background": 100 * background.hungarian.miou,
        "miou_void_background_majority": 100 * background.majority.miou,
        "pixel_accuracy_void_background": 100 * background.hungarian.pixel_accuracy,
        "foreground_iou_void_background": 100 * background.foreground_iou,
    }


if __name__ == "__main__":
    main()
