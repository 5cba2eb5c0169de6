"""Quality on photographs with masks: clusters, and every iteration of self-training, as one table.

    python -m bench.quality --data ../shared/data/msrc14

`--data`: JPEGImages/, SegmentationClass/ (255 void), SegmentationClassBG/ (void counted as background), classes.txt,
objects.txt (the images to use). Everything is in percent. The objects themselves are scored by bench/saliency.py.
"""

from __future__ import annotations

from pathlib import Path

from bench import harness
from bench.paper.experiment import Experiment
from fastcomus.evaluation.image_labels import compute_object_accuracy
from fastcomus.run.contents import list_iterations
from fastcomus.run.run import Run


def main() -> None:
    parser = harness.make_parser(__doc__, "quality", data=None, seed=0)
    parser.add_argument("--run", type=Path, default=Path("quality-run"), help="folder, gone on with if there")
    parser.add_argument("--seeds", type=int, default=5, help="clusterings whose accuracy is shown")
    parser.add_argument("--no-training", action="store_true", help="stop at iteration 0")
    arguments = parser.parse_args()
    experiment = Experiment(str(arguments.data), arguments.run, preset="offline", seeds=arguments.seeds, device="cpu")
    times = harness.time_once(measure, experiment, arguments.data, arguments.seed, not arguments.no_training)
    numbers = {"seed": arguments.seed, **times.result, "elapsed_s": times.median_s}
    rows = [{"what": name, **harness.summarise(numbers[name])} for name in numbers if name.endswith("accuracy")]
    rows += [{"what": f"iteration {place}", **scores} for place, scores in enumerate(numbers["iterations"])]
    harness.finish(arguments, f"{numbers['images']} images, k = {numbers['k']}, preset offline", numbers, shown=rows)


def measure(experiment: Experiment, data: Path, seed: int, with_training: bool) -> harness.Row:
    run = experiment.run("objects-run", seed)
    numbers = {"images": len(harness.list_object_images(data)), "k": experiment.k}
    classes = experiment.find_object_classes(run)
    for method in ("spectral", "kmeans"):
        clustered = [experiment.cluster_run(run, one, method=method).labels for one in range(experiment.seeds)]
        numbers[f"{method}_object_accuracy"] = [100 * compute_object_accuracy(one, classes) for one in clustered]
    run.cluster()
    if with_training:
        run.train()
    numbers["iterations"] = [score_iteration(run, data, iteration) for iteration in list_iterations(run.folder)]
    return numbers


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
