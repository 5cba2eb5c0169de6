"""Table 4: a network trained on one data set labels the images of another."""

from __future__ import annotations

from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.errors import InputError
from fastcomus.run.run import Run
from fastcomus.store.masks import read_class_map
from fastcomus.store.run_folder import RunFolder

NEEDS = "--trained RUN (table1's, say) and --data coco-voc:PATH@val2017, voc:VOCdevkit@test or another."
SEEDS = 1


def measure(experiment: Experiment) -> Result:
    if experiment.trained is None:
        raise InputError("this needs --trained, the run folder of a network that was trained on other images.")
    run = Run(experiment.trained, device=str(experiment.backend.device))
    k = (run.folder.read_manifest("clusters") or {}).get("k", 0)
    masks = RunFolder(run.predict(experiment.images, experiment.work / "transferred"))
    scored = experiment.score_maps(lambda image: read_class_map(masks, f"{image}.png"), k)
    result = Result(
        f"Transfer to {scored.images} images", ("matching", "mIoU", "pixel accuracy", "classes of IoU >= 20 %")
    )
    for name, one in (("Hungarian", scored.hungarian), ("majority", scored.majority)):
        result.add(name, one.miou, one.pixel_accuracy, one.discovered)
    return result
