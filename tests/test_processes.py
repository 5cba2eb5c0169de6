"""Several processes train one network: two of them, over gloo, against one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fork_server
import numpy as np
import pytest
import torch
from conftest import Photographs, tree_bytes
from crash_stages import command as run_command
from fork_server import Trial
from places import TESTS
from shared_training import be_one_of_two, learn, learn_all
from torch import nn

from fastcomus import Run
from fastcomus.errors import InputError
from fastcomus.networks.synchronized_batch_norm import SynchronizedBatchNorm, synchronize_batch_norms
from fastcomus.processes import ProcessGroup, detect_process_group

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1", "FASTCOMUS_OFFLINE": "1"}


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the fork server and its limits are Linux's")


def work_as_two(work: Callable[..., None], *given: Any) -> None:
    """As torchrun has two processes do it, but that they are forked from one that has imported everything."""
    fork_server.prepare()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(rank: int) -> Trial:
        return Trial(be_one_of_two, rank, port, work, *given, watched=Path("nothing"))

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(start, range(2)))
    assert [one.code for one in ended] == [0, 0], [one.error for one in ended]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes learn from whole batches and from one image at a time."""
    result = tmp_path_factory.mktemp("two") / "result.json"
    work_as_two(learn_all, result, 0, 1)
    return json.loads(result.read_text())


@needs_linux
@pytest.mark.parametrize("images_at_once", [0, 1])
def test_two_processes_learn_what_one_does(
    images_at_once: int, two_processes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses within 0.5 % in the first epoch and 3 % after: batches, statistics and gradients are the same but for the
    order of summing, which Adam enlarges in a network of random weights."""
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, values: values)  # it differs by process
    one, two = learn(2 * images_at_once, ProcessGroup(0, 1, 0)), two_processes[images_at_once]
    assert one["seen"] == two["seen"] == [4, 3] * 2
    np.testing.assert_allclose(two["history"][0], one["history"][0], rtol=5e-3)  # agreement and rate as well
    losses = [np.array(run["history"])[:, 1] for run in (two, one)]
    np.testing.assert_allclose(*losses, rtol=3e-2)
    assert one["history"][-1][1] < one["history"][0][1]
    assert two["weights"][0] == two["weights"][1]  # both processes end with the same network


def test_statistics_of_a_group_of_one_are_plain_ones(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        nn.init.uniform_(plain[1].weight)
        shared = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        shared.load_state_dict(plain.state_dict())
        synchronize_batch_norms(shared, torch.device("cpu"))
        assert isinstance(shared[1], SynchronizedBatchNorm)
        images = torch.randn(5, 3, 8, 9)
        for _ in range(2):
            for network in (plain, shared):
                network.zero_grad()
                (network(images) ** 3).sum().backward()
            torch.testing.assert_close(plain(images), shared(images), rtol=1e-5, atol=1e-5)
            for name, parameter in plain.named_parameters():
                expected = dict(shared.named_parameters())[name].grad
                torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-3)
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(tensor, shared.state_dict()[name])
        torch.testing.assert_close(plain.eval()(images), shared.eval()(images))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@needs_linux
def test_training_shared_by_two_that_is_killed_goes_on(
    run_copy: Path, photographs: Photographs, tmp_path: Path
) -> None:
    """One process of two is killed: the other ends too and says why; the same command, undisturbed, finishes."""
    for iteration in (1, 2):
        for file in sorted((run_copy / f"iteration-{iteration}").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
    train = ["train", "--run", str(run_copy), "--iterations", "1", "--epochs"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "--", "fastcomus", *train, "40"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    checkpoint = run_copy / "iteration-1/checkpoint.pt"
    deadline = time.monotonic() + 200
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    victim = _children_that_train(process.pid)[1]
    os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=200)
    assert process.returncode != 0
    done = len((run_copy / "iteration-1/training.csv").read_text().splitlines()) - 1
    assert 0 < done < 40
    work_as_two(run_command, *train, str(done + 1))
    names = tree_bytes(run_copy)
    assert "iteration-1/segmenter.safetensors" in names and "iteration-1/checkpoint.pt" not in names
    masks = [name for name in names if name.startswith("iteration-1/masks/")]
    assert len(masks) == 24
    assert Run(run_copy, device="cpu").evaluate(photographs.truth, iteration=1).images == 24


def _children_that_train(parent: int) -> list[int]:
    """Process ids of the workers, in the order they were started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(folder.name))
    return sorted(found)


def test_who_is_who() -> None:
    assert detect_process_group({}) == ProcessGroup(0, 1, 0) and detect_process_group({}).is_first
    assert detect_process_group({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == ProcessGroup(5, 8, 1)
    assert detect_process_group({"RANK": "1"}) == ProcessGroup(0, 1, 0)  # somebody else's variable


def test_who_is_who_under_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    slurm = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}
    assert detect_process_group({**slurm, "SLURM_NNODES": "1"}) == ProcessGroup(3, 4, 1)
    with pytest.raises(InputError, match="MASTER_ADDR"):
        detect_process_group({**slurm, "SLURM_NNODES": "2"})
    assert detect_process_group({**slurm, "SLURM_NNODES": "2", "MASTER_ADDR": "node1"}).rank == 3
    assert detect_process_group({**slurm, "SLURM_STEP_NUM_TASKS": "1"}) == ProcessGroup(0, 1, 0)
    in_batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
    assert detect_process_group(in_batch_script) == ProcessGroup(0, 1, 0)


def test_other_commands_are_not_shared(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastcomus", "embed", str(tmp_path)],
        env={**ENVIRONMENT, "RANK": "0", "WORLD_SIZE": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1
    assert done.stderr.startswith("fastcomus: ") and "only fastcomus train is shared" in done.stderr
