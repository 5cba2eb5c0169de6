"""Tables 9 and 11: the settings of the presets voc and coco, against the paper's."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.settings import get_preset_config

NEEDS = "nothing: the settings of the presets."
SEEDS = 1
# As the paper gives them; (voc, coco) where they differ.
PAPER: dict[str, Any] = {
    "embed.theta": "0.5",
    "embed.crop_size": 256,
    "embed.encoder": "vit_small_patch8_224.dino",
    "cluster.n_neighbors": 30,
    "cluster.k": (20, 80),
    "cluster.n_init": 10,
    "cluster.filter": 0.2,
    "cluster.assign": "kmeans",
    "train.backbone": "dino_resnet50",
    "train.learning_rate": 6e-5,
    "train.schedule": "constant",
    "train.batch_size": 56,
    "train.train_size": (512, 256),
    "train.scale_min": (0.5, 0.2),
    "train.scale_max": (2.0, 1.0),
    "train.epochs": (10, 1),
    "train.iterations": 2,
}


def measure(experiment: Experiment) -> Result:
    result = Result("Settings of the presets voc and coco", ("setting", "voc", "paper, VOC", "coco", "paper, COCO"))
    differing = []
    for name, paper in PAPER.items():
        papers = paper if isinstance(paper, tuple) else (paper, paper)
        ours = [attrgetter(name)(get_preset_config(preset)) for preset in ("voc", "coco")]
        if list(papers) != ours:
            differing.append(name)
        result.add(name, str(ours[0]), str(papers[0]), str(ours[1]), str(papers[1]))
    result.notes.append(f"Not the paper's: {', '.join(differing)}." if differing else "All are the paper's.")
    return result
