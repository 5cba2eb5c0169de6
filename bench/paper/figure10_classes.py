"""Figure 10: IoU of every class as bars."""

from __future__ import annotations

import math

from bench.paper.experiment import Experiment
from bench.paper.result import Result

NEEDS = (
    "--data voc:PATH@val, coco:PATH@val2017 or a folder; bars of the last iteration in --work, else of the clusters."
)
SEEDS = 1
BAR = 40  # characters of an IoU of 100 %


def measure(experiment: Experiment) -> Result:
    trained = experiment.work / "full-0"
    if (trained / "iteration-2/manifest.json").exists():
        scored, what = experiment.score_iteration(experiment.run("full-0"), 2), "iteration 2"
    else:
        run = experiment.objects
        scored, what = experiment.score_clusters(run, experiment.cluster_run(run, 0)), "the clusters"
    result = Result(f"IoU of every class, {what}, Hungarian", ("class", "IoU", "bar"))
    ious = {
        name: iou for name, iou in zip(scored.classes, scored.hungarian.per_class, strict=True) if not math.isnan(iou)
    }
    for name, iou in sorted(ious.items(), key=lambda item: -item[1]):
        result.add(name, iou, "█" * round(BAR * iou))
    return result
