"""Quality on photographs with masks: saliency, clusters, and every iteration of self-training, as one table.

    python -m bench.quality --data ../shared/data/msrc14

`--data`: JPEGImages/, Saliency/ (object or not), SegmentationClass/ (255 void), SegmentationClassBG/ (void counted as
background), classes.txt, objects.txt (the images to use). Everything is in percent unless its name says otherwise.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
from PIL import Image

from bench import harness
from bench.paper.experiment import Experiment
from fastcomus.evaluation.image_labels import compute_object_accuracy
from fastcomus.run.contents import list_iterations
from fastcomus.run.run import Run
from fastcomus.store.objects_table import decode_mask


def main() -> None:
    parser = harness.make_parser(__doc__, "quality", data=None, seed=0)
    parser.add_argument(
        "--run", type=Path, default=Path("quality-run"), help="folder of the run, gone on with if there"
    )
    parser.add_argument("--seeds", type=int, default=5, help="clusterings whose accuracy is shown")
    parser.add_argument("--no-training", action="store_true", help="stop at iteration 0")
    arguments = parser.parse_args()
    experiment = Experiment(str(arguments.data), arguments.run, preset="offline", seeds=arguments.seeds, device="cpu")
    times = harness.time_once(measure, experiment, arguments.data, arguments.seed, not arguments.no_training)
    numbers = {**harness.describe_run(), "seed": arguments.seed, **times.result, "elapsed_s": times.median_s}
    harness.write_json(arguments.json, numbers)
    rows = [{"what": "saliency: mean foreground IoU", "value": numbers["saliency_foreground_iou"]}]
    for method in ("spectral", "kmeans"):
        found = numbers[f"{method}_object_accuracy"]
        spread = f"+- {statistics.pstdev(found):.1f}, {len(found)} seeds"
        rows.append({"what": f"{method}: object accuracy {spread}", "value": statistics.mean(found)})
    for iteration, scores in enumerate(numbers["iterations"]):
        rows += [{"what": f"iteration {iteration}: {name}", "value": value} for name, value in scores.items()]
    title = f"{numbers['images']} images, k = {numbers['k']}, seed {numbers['seed']}"
    caption = f"{times.median_s:.0f} s in all; the offline preset (its encoder was trained with labels)"
    harness.print_table(title, rows, {"what": "{what}", "measured": "{value:.1f} %"}, caption)


def measure(experiment: Experiment, data: Path, seed: int, with_training: bool) -> harness.Row:
    run = experiment.run("objects-run", seed)
    numbers = {"images": len(harness.list_object_images(data)), "k": experiment.k}
    numbers["saliency_foreground_iou"] = score_saliency(run, data)
    classes = experiment.find_object_classes(run)
    for method in ("spectral", "kmeans"):
        clustered = [experiment.cluster_run(run, one, method=method).labels for one in range(experiment.seeds)]
        numbers[f"{method}_object_accuracy"] = [100 * compute_object_accuracy(one, classes) for one in clustered]
    run.cluster()
    if with_training:
        run.train()
    numbers["iterations"] = [score_iteration(run, data, iteration) for iteration in list_iterations(run.folder)]
    return numbers


def score_saliency(run: Run, data: Path) -> float:
    """Mean over images of the IoU of object-or-not; an image without an object scores 0."""
    ious = []
    for row in run.objects().select(["image", "mask", "height", "width"]).to_pylist():
        found = decode_mask(row["mask"], row["height"], row["width"])
        with Image.open(data / "Saliency" / f"{Path(row['image']).stem}.png") as picture:
            true = np.asarray(picture) > 0
        ious.append((found & true).sum() / (found | true).sum())
    return float(100 * sum(ious) / len(harness.list_object_images(data)))


def score_iteration(run: Run, data: Path, iteration: int) -> dict[str, float]:
    ignored = run.evaluate(data / "SegmentationClass", data / "classes.txt", iteration)
    background = run.evaluate(data / "SegmentationClassBG", data / "classes.txt", iteration)
    return {
        "miou_void_ignored": 100 * ignored.hungarian.miou,
        "miou_void_background": 100 * background.hungarian.miou,
        "miou_void_background_majority": 100 * background.majority.miou,
        "pixel_accuracy_void_background": 100 * background.hungarian.pixel_accuracy,
        "foreground_iou_void_background": 100 * background.foreground_iou,
    }


if __name__ == "__main__":
    main()
