"""What labelling takes and what it is worth: mean IoU and images per CPU-second by sizes, mirroring and engine.

    OMP_NUM_THREADS=1 python -m bench.prediction_quality --data ../shared/data/msrc14 --run RUN

`--data`: JPEGImages/, SegmentationClassBG/ (void counted as background), classes.txt and objects.txt, as for
bench.paper; `--run`: a run folder with a network trained on these photographs (`fastcomus run JPEGImages --k 14`). A
random choice of `--count` photographs is labelled in every way of `WAYS`, files and all, as `predict` does, one thread
computing and one reading and writing. Clusters get the classes that match them best under `best`, so that ways
differ in labels alone. What is measured is kept in `--json`, and not measured again.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.evaluation.confusion import compute_confusion_matrix
from fastcomus.evaluation.matching import Matching, match_hungarian, score
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.networks.inference import has_openvino
from fastcomus.run.contents import choose_trained_iteration
from fastcomus.run.labelling_settings import choose_quality
from fastcomus.run.run import Run
from fastcomus.segmentation.files import load_segmenter
from fastcomus.segmentation.labelling_network import prepare_segmenter
from fastcomus.segmentation.prediction import label_images
from fastcomus.settings import get_preset_config, with_settings
from fastcomus.store.masks import get_mask_file_name, read_class_map, write_class_map
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

BEST = "best, torch"  # what the others are compared with
WAYS: dict[str, dict[str, Any]] = {
    "best": choose_quality("best", "offline"),
    "best, without edges": {**choose_quality("best", "offline"), "follow_edges": False},
    "default": {},
    "default, without edges": {"follow_edges": False},
    "fast": choose_quality("fast", "offline"),
    "fast, without edges": {**choose_quality("fast", "offline"), "follow_edges": False},
}


def main() -> None:
    parser = harness.make_parser(__doc__, "prediction_quality", data=None, count=100, workers=1)
    parser.add_argument("--run", type=Path, required=True)
    arguments = parser.parse_args()
    names = [f"{name}.jpg" for name in (arguments.data / "objects.txt").read_text().split()]
    names = random.Random(0).sample(names, min(arguments.count, len(names)))
    engines = ["torch", "openvino"] if has_openvino() else ["torch"]
    measured = harness.read_json(arguments.json).get("measured", {})
    for way in WAYS:
        for engine in engines:
            side, mark = f"{way}, {engine}", compute_fingerprint(way=WAYS[way], names=names)
            if measured.get(side, {}).get("mark") != mark:
                harness.print_progress(side)
                measured[side] = {"mark": mark, **measure_way(arguments, names, WAYS[way], engine)}
            matching = match_hungarian(np.array(measured[BEST]["confusion"]))
            rows = [describe_way(side, one, measured[BEST], matching) for side, one in measured.items()]
            numbers = {**harness.describe_run("cpu", "openvino"), "images": len(names), "rows": rows}
            harness.write_json(arguments.json, {**numbers, "measured": measured})
    harness.print_table(f"Labelling {len(names)} photographs", rows)


def measure_way(arguments: Any, names: list[str], settings: dict[str, Any], engine: str) -> harness.Row:
    """CPU-seconds of labelling the images `names`, and the confusion of clusters with classes that came of it."""
    backend, run = select("cpu"), Run(arguments.run).folder
    config = with_settings(get_preset_config("offline"), {"predict": settings})
    network = load_segmenter(run, choose_trained_iteration(run, None))
    k = network.head[-1].out_channels - 1
    started = harness.time_once(prepare_segmenter, network, "float32", backend.device, engine)
    root = arguments.data / "JPEGImages"
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)

        def write(prediction: Any) -> None:
            write_class_map(folder, get_mask_file_name(prediction.image), prediction.compute_labels())

        def label(images: list[str]) -> None:
            for _ in label_images(
                started.result, root, images, (), write, config, backend, arguments.workers, "labels"
            ):
                pass

        label(names[:2])
        taken = harness.time_once(label, names)
        confusion = sum(
            compute_confusion_matrix(
                read_class_map(folder, get_mask_file_name(name)),
                read_mask(arguments.data / "SegmentationClassBG" / f"{Path(name).stem}.png"),
                k,
                backend,
            )
            for name in names
        )
    assert isinstance(confusion, np.ndarray)
    times = {
        "images": len(names),
        "prepare_cpu_s": started.cpu_s[0],
        "cpu_s": taken.cpu_s[0],
        "wall_s": taken.wall_s[0],
    }
    classes = len((arguments.data / "classes.txt").read_text().split())
    return {**times, "confusion": confusion[:, :classes].tolist()}


def describe_way(side: str, one: harness.Row, best: harness.Row, matching: Matching) -> harness.Row:
    miou, best_miou = (100 * score(np.array(of["confusion"]), matching).miou for of in (one, best))
    return {
        "way": side,
        "mIoU": miou,
        "less than best": best_miou - miou,
        "images per cpu second": one["images"] / one["cpu_s"],
        "times as fast": best["cpu_s"] / one["cpu_s"],
        "seconds to prepare": one["prepare_cpu_s"],
    }


if __name__ == "__main__":
    main()
