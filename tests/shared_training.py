"""One of several processes that train together; `torchrun` starts it. Writes what came of it as JSON.

torchrun --nproc-per-node 2 tests/shared_training.py BACKBONE_FILE IMAGES_AT_ONCE RESULT
"""

from __future__ import annotations

import json
import sys
from dataclasses import astuple

import torch
from squares import square

from fastcomus.backends.choose import select
from fastcomus.config import TrainConfig
from fastcomus.processes import detect_process_group
from fastcomus.segmentation.training import SelfTraining


def main() -> None:
    backbone, images_at_once, result = sys.argv[1:]
    torch.set_num_threads(1)
    torch.nn.Dropout.forward = lambda self, values: values  # type: ignore[method-assign]  # it differs by process
    config = TrainConfig(
        backbone="mobilenetv3_small_050",
        backbone_weights=backbone,
        output_stride=8,
        train_size=65,
        scale_min=0.5,
        scale_max=1.0,
        batch_size=4,
        images_at_once=int(images_at_once),
        learning_rate=2e-3,
        weight_average=0.5,
        precision="float32",
    )
    processes, backend = detect_process_group(), select("cpu")
    with processes.connect(backend.device):
        training = SelfTraining(2, config, 3, 0, backend, processes)
        seen = list(training.train(square, 11, 1))
        told = processes.gather(
            {name: float(t.double().sum()) for name, t in training.get_trained().state_dict().items()}
        )
    if processes.is_first:
        rows = [astuple(row)[:-1] for row in training.history]
        with open(result, "w", encoding="utf-8") as stream:
            json.dump({"seen": seen, "history": rows, "weights": told}, stream)


if __name__ == "__main__":
    main()
