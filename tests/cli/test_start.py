"""What each command imports: those that only look or refuse load nothing that takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Photographs

from fastcomus.backends.machine import has_gpu_driver

# Each group of commands runs in a process of its own, one after the other, and each tells what is loaded at its end: by
# those before it too, so a group begins with those that may load least.
PROGRAM = """
import json, os, sys
from fastcomus.cli.commands import main
told, sys.stdout = sys.stdout, open(os.devnull, "w")
sys.stderr = sys.stdout
for line in json.loads(sys.argv[1]):
    sys.argv, code = ["fastcomus", *line], 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    print(json.dumps([code, sorted(sys.modules)]), file=told, flush=True)
"""
TORCH = {"torch", "torchvision", "timm"}
SCIPY = {"sklearn", "numba", *(f"scipy.{part}" for part in ("sparse", "linalg", "optimize", "ndimage", "stats"))}
VISION = {"torchvision", "torch._dynamo"}


@pytest.fixture(scope="module")
def loaded(photographs: Photographs, finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set]:
    """The modules that each command has loaded when it ends, by its line."""
    folder = tmp_path_factory.mktemp("start")
    np.save(folder / "rows.npy", np.random.default_rng(0).normal(size=(2_500, 8)).astype(np.float32))
    np.save(folder / "few.npy", np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32))
    run = shutil.copytree(finished_run, folder / "finished")
    places = {"run": run, "new": folder / "run", "truth": photographs.truth, "rows": folder / "rows.npy"}
    places |= {"few": folder / "few.npy", "out": folder / "out", "here": photographs.images, "gone": folder / "gone"}
    environment = {**os.environ, "FASTCOMUS_OFFLINE": "1", "FASTCOMUS_WEIGHTS": str(folder / "weights")}
    ends = {}
    for lines in ([*LIGHT, *REFUSED], MIDDLE, [CLUSTERS], [FEW, ASSIGNED]):
        filled = json.dumps([[word.format(**places) for word in line.split()] for line in lines])
        reply = subprocess.run(
            [sys.executable, "-c", PROGRAM, filled], env=environment, stdout=subprocess.PIPE, check=True
        )
        ends |= dict(zip(lines, map(json.loads, reply.stdout.splitlines()), strict=True))
    assert {line: code for line, (code, _) in ends.items()} == {line: 2 * (line in REFUSED) for line in ends}
    return {line: set(modules) for line, (_, modules) in ends.items()}


LIGHT = ("--help", "name --run {run}", "weights list", "history --run {run}", "embed --help", "export coco --help")
REFUSED = (
    "embed {gone} --run {new}",
    "embed {here} --theta 7 --run {new}",
    "embed {here} --device tpu --run {new}",
    "embed {here} --no-such-option",
    "train-saliency {gone} --run {new}",
    "train-saliency {here} --size 0 --run {new}",
    "cluster --embeddings {gone}.npy --run {new}",
    "cluster --k 1 --run {run}",
    "suggest-k --run {gone}",
    "train --run {gone}",
    "train --train-size 0 --run {run}",
    "predict {gone} --run {run}",
    "assign {gone} --run {run}",
    "evaluate --truth {gone} --run {run}",
    "export coco --run {gone}",
    "report --run {gone}",
    "run {gone} --run {new}",
)
MIDDLE = (
    "export coco --output {out} --run {run}",
    "report --run {run}",
    "evaluate --truth {truth} --run {run}",
)
CLUSTERS = "cluster --embeddings {rows} --k 3 --run {new}"
FEW = "cluster --embeddings {few} --k 3 --run {new}"
ASSIGNED = "assign --embeddings {few} --run {new}"


@pytest.mark.parametrize("line", [*LIGHT, *REFUSED])
def test_who_only_looks_or_is_refused_waits_for_neither_torch_nor_scipy(line: str, loaded: dict[str, set]) -> None:
    assert not loaded[line] & (TORCH | SCIPY)


def test_help_loads_nothing_that_takes_long(loaded: dict[str, set]) -> None:
    assert not loaded["--help"] & {"numpy", "pyarrow", "PIL"}


@pytest.mark.parametrize("line", [*MIDDLE, CLUSTERS, FEW, ASSIGNED])
def test_work_without_networks_waits_for_no_torchvision(line: str, loaded: dict[str, set]) -> None:
    assert not loaded[line] & VISION


@pytest.mark.parametrize("line", [CLUSTERS, FEW, ASSIGNED])
@pytest.mark.skipif(has_gpu_driver(), reason="with a GPU's driver, torch is asked for the GPU")
def test_clusters_are_made_without_torch_numba_and_scikit_learn(line: str, loaded: dict[str, set]) -> None:
    assert not loaded[line] & (TORCH | {"sklearn", "scipy.stats", "numba", "faiss", "pandas"})


@pytest.mark.parametrize("line", MIDDLE)
@pytest.mark.skipif(has_gpu_driver(), reason="with a GPU's driver, torch is asked for the GPU")
def test_what_has_been_found_is_scored_and_shown_without_torch(line: str, loaded: dict[str, set]) -> None:
    assert not loaded[line] & (TORCH | {"numba"})
