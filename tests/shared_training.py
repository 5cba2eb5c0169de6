"""One of several processes that train together; `torchrun` starts it. The first writes what came of it as JSON.

torchrun --nproc-per-node 2 tests/shared_training.py BACKBONE_FILE RESULT IMAGES_AT_ONCE ...
"""

from __future__ import annotations

import json
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from squares import square

from fastcomus.backends.choose import select
from fastcomus.config import TrainConfig
from fastcomus.processes import ProcessGroup, detect_process_group
from fastcomus.segmentation.training import SelfTraining


def learn(backbone: str, images_at_once: int, processes: ProcessGroup) -> dict[str, Any]:
    config = TrainConfig(
        backbone="mobilenetv3_small_050",
        backbone_weights=backbone,
        output_stride=8,
        train_size=65,
        scale_min=0.5,
        scale_max=1.0,
        batch_size=4,
        images_at_once=images_at_once,
        learning_rate=2e-3,
        weight_average=0.5,
        precision="float32",
    )
    training = SelfTraining(2, config, 3, 0, select("cpu"), processes)
    seen = list(training.train(square, 11, 1))
    sums = {name: float(t.double().sum()) for name, t in training.get_trained().state_dict().items()}
    rows = [astuple(row)[:-1] for row in training.history]
    return {"seen": seen, "history": rows, "weights": processes.gather(sums)}


def main() -> None:
    backbone, result, *counts = sys.argv[1:]
    torch.set_num_threads(1)
    torch.nn.Dropout.forward = lambda self, values: values  # type: ignore[method-assign]  # it differs by process
    processes = detect_process_group()
    with processes.connect(torch.device("cpu")):
        told = [learn(backbone, int(count), processes) for count in counts]
    if processes.is_first:
        Path(result).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
