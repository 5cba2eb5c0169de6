"""Several devices of one machine: as many processes, the files of one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import fork_server
import pytest
import torch
from conftest import ENCODER, TINY, Photographs, tree_bytes
from cuda_on_cpu.cpu_kernels import CpuKernels
from typer.testing import CliRunner

from fastcomus import InputError, Run
from fastcomus.backends import choose
from fastcomus.backends.gpu import GpuBackend
from fastcomus.cli.commands import app
from fastcomus.run.embed_work import ShardOfImages, make_embed_work
from fastcomus.run.engines.several_devices import _serve, parse_devices
from fastcomus.settings import get_preset_config

FAST = {**TINY, "embed": {**TINY["embed"], **ENCODER}}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """How many threads share a matrix product can change its last bits; processes get a share of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["forked", pytest.param("spawned", marks=pytest.mark.slow)])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are forked from one that has imported everything, as those of CUDA may not be; or they are new ones."""
    if sys.platform == "linux" and request.param == "forked":
        fork_server.prepare()
        monkeypatch.setattr(multiprocessing, "get_context", lambda _: fork_server.CONTEXT)


def test_devices_are_named_one_by_one_or_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_devices("auto") == ["auto"] and parse_devices("cuda:3") == ["cuda:3"]
    assert parse_devices("cuda:1, cuda:0") == ["cuda:1", "cuda:0"] and parse_devices("cpu,cpu") == ["cpu", "cpu"]
    for wanted, sign in (("cuda:0,cuda:0", "twice"), ("cuda:0,auto", "'auto'"), ("cpu,", "''"), ("cuda,cpu", "'cuda'")):
        with pytest.raises(InputError, match=sign):
            parse_devices(wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert parse_devices("cuda:all") == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda:all", "cuda:0,cuda:1", "cpu,cuda:0"])
def test_a_device_that_is_not_there_is_told_at_once(device: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 CUDA devices"):
        Run(tmp_path / "run", preset="offline", device=device)


@pytest.mark.parametrize("command", [["train"], ["cluster"], ["run", "images"]])
def test_other_commands_take_one_device(command: list[str]) -> None:
    for device in ("cpu,cpu", "cuda:all"):
        told = CliRunner().invoke(app, [*command, "--device", device]).exception
        assert isinstance(told, InputError) and f"fastcomus {command[0]} runs on one device; got --device" in str(told)


def test_predict_gives_the_bytes_of_one_process(
    processes: None, finished_run: Path, many: Photographs, tmp_path: Path
) -> None:
    for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
        Run(finished_run, device=device).predict(
            many.images, tmp_path / name, overlay=True, probabilities=True, predict_size=33
        )
    one = tree_bytes(tmp_path / "one")
    assert tree_bytes(tmp_path / "two") == one and len(one) == 3 * 70 + 1


def test_embed_gives_the_bytes_of_one_process_though_one_of_two_is_killed(
    processes: None, many: Photographs, tmp_path: Path
) -> None:
    """One of the two is killed once there is a shard: both end with a sentence, and the rest is done next time."""
    run = Run(tmp_path / "run", preset="offline", settings=FAST, device="cpu,cpu")
    killed: list[int] = []

    def kill_one() -> None:
        while not list((tmp_path / "run/objects").glob("part-*")):
            time.sleep(0.02)
        killed.extend(children()[-1:])
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    with pytest.raises(InputError, match=r"exit code -9.*start the same command again"):
        run.embed(many.images, shard_images=2)
    assert killed and not children()
    done = {part: part.stat().st_mtime_ns for part in (tmp_path / "run/objects").glob("part-*")}
    assert 0 < len(done) < 36
    run.embed(many.images, shard_images=2)
    assert all(part.stat().st_mtime_ns == before for part, before in done.items())
    assert len(run.folder.read_table("objects/skipped.parquet")) == 2
    Run(tmp_path / "one", preset="offline", settings=FAST, device="cpu").embed(many.images, shard_images=2)
    assert tree_bytes(tmp_path / "run") == tree_bytes(tmp_path / "one")


def test_what_a_process_cannot_load_is_told_and_nothing_is_written(
    processes: None, many: Photographs, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", preset="offline", settings=FAST, device="cpu,cpu")
    (tmp_path / "weights.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        run.embed(many.images, encoder_weights=str(tmp_path / "weights.safetensors"))
    assert not (tmp_path / "run").exists() and not children()


def test_a_process_tells_where_its_images_were_decoded(
    many: Photographs, kernels: CpuKernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pieces in what such a process runs, with a backend that decodes on its device, here the CPU."""
    backend = GpuBackend(torch.device("cpu"), kernels=kernels)
    monkeypatch.setattr(choose, "select", lambda device: backend)
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    names = [f"{number:02}.png" for number in range(6)]
    settings = {**TINY["embed"], "saliency": "tokencut", "saliency_size": 96}
    work = make_embed_work(many.images, replace(get_preset_config("offline").embed, **settings))
    ours, theirs = multiprocessing.Pipe()
    served = threading.Thread(target=_serve, args=(theirs, work, "cuda:0", 1, 1))
    served.start()
    said = [ours.recv()]
    for index, part in enumerate((names[:4], names[4:])):
        ours.send(ShardOfImages(index, part))
        said += [ours.recv(), ours.recv()]
    ours.close()
    served.join()
    assert [what for what, _ in said] == ["ready", "result", "done", "result", "done"]
    assert [told for what, told in said if what == "done"] == [{"no JPEG": 4}, {"no JPEG": 2}]


def children() -> list[int]:
    """Processes that this one started for devices, by multiprocessing's own list."""
    return [one.pid for one in multiprocessing.active_children() if one.pid]
