"""One of two processes that train together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from conftest import BACKBONE
from squares import square

from fastcomus.backends.choose import select
from fastcomus.config import TrainConfig
from fastcomus.processes import ProcessGroup, detect_process_group
from fastcomus.segmentation.training import SelfTraining


def learn(images_at_once: int, processes: ProcessGroup) -> dict[str, Any]:
    config = TrainConfig(
        **BACKBONE,
        output_stride=8,
        train_size=49,
        scale_min=0.5,
        scale_max=1.0,
        batch_size=4,
        images_at_once=images_at_once,
        learning_rate=1e-3,
        weight_average=0.5,
        precision="float32",
    )
    training = SelfTraining(2, config, 2, 0, select("cpu"), processes)
    seen = list(training.train(square, 7, 1))
    sums = {name: float(t.double().sum()) for name, t in training.get_trained().state_dict().items()}
    rows = [astuple(row)[:-1] for row in training.history]
    return {"seen": seen, "history": rows, "weights": processes.gather(sums)}


def be_one_of_two(rank: int, port: int, work: Callable[..., None], *given: Any) -> None:
    """Do `work(*given)` with what torchrun tells its processes."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    work(*given)


def learn_all(result: Path, *images_at_once: int) -> None:
    """Write as JSON what the two learn, with each number of images at once."""
    torch.nn.Dropout.forward = lambda self, values: values  # type: ignore[method-assign]  # it differs by process
    processes = detect_process_group()
    with processes.connect(torch.device("cpu")):
        told = [learn(count, processes) for count in images_at_once]
    if processes.is_first:
        result.write_text(json.dumps(told), encoding="utf-8")
