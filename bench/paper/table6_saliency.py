"""Table 6: what finds the objects, and what the clusters are worth on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.paper.experiment import Experiment
from bench.paper.result import Result, extract_reason
from bench.saliency import measure_method
from fastcomus.errors import InputError
from fastcomus.objects.saliency.methods import METHODS
from fastcomus.settings import get_preset_config, with_settings

NEEDS = "--data voc:PATH@val, coco:PATH@val2017 or a folder; methods whose weights are not here are named."
SEEDS = 1


def measure(experiment: Experiment, methods: Sequence[str] = METHODS) -> Result:
    columns = ("saliency", "foreground IoU", "F-max", "MAE", "mIoU of the clusters")
    result = Result("Saliency methods", columns)
    truth = experiment.masks
    names = [name for name in truth.files if (experiment.images / name).exists()]
    masks = [(labels > 0) & (labels < 255) for labels in map(truth.read, names)]
    config = with_settings(get_preset_config(experiment.preset), experiment.settings).embed
    for method in methods:
        try:
            found = measure_method(
                [experiment.images / name for name in names],
                [np.ascontiguousarray(mask) for mask in masks],
                replace(config, saliency=method),
                experiment.backend.device,
            )
            run = experiment.run(f"saliency-{method}", saliency=method)
            miou = experiment.score_clusters(run, experiment.cluster_run(run, 0)).hungarian.miou
            result.add(method, found["foreground_iou"], found["f_max"], found["mean_absolute_error"], miou)
        except InputError as error:
            result.notes.append(f"{method}: {extract_reason(error)}.")
    result.notes.append(
        "Foreground IoU is the mean over images; void counts as background. The paper's detector: 51.0 on VOC."
    )
    return result
