"""The per-image stages on Ray: the files of one process, whatever the actors; bad input is told before Ray starts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import planted
import pytest
import tomli_w
import torch
from conftest import ENCODER, TINY, Photographs, tree_bytes

from fastcomus import InputError, Run
from fastcomus.clusters import sampled
from fastcomus.run.engines.ray import _ALONE, _QUIET, Share, make_ray_engine, plan_share

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra distributed is not installed")
SHARDS = {**TINY, "embed": {**TINY["embed"], **ENCODER, "shard_images": 4}}


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """One Ray of one core for the module, as a program has that calls ray.init itself; FASTCOMUS starts none then."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as actors of one core have: how many share a product can change its last bits
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="t-") as scratch:
        for name, value in {**_QUIET, **_ALONE}.items():
            patch.setenv(name, value)
        import ray  # which reads some of them here

        ray.init("local", num_cpus=1, include_dashboard=False, _temp_dir=scratch, log_to_driver=False)
        yield
        ray.shutdown()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one(many: Photographs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes of the photographs, in eighteen parts."""
    run = Run(tmp_path_factory.mktemp("one") / "run", preset="offline", settings=SHARDS, device="cpu")
    run.embed(many.images)
    return tree_bytes(run.folder.path)


@needs_ray
def test_predict_gives_the_bytes_of_one_process(
    own_ray: None, finished_run: Path, many: Photographs, tmp_path: Path
) -> None:
    kinds = {"overlay": True, "probabilities": True, "predict_size": 33}
    Run(finished_run, device="cpu").predict(many.images, tmp_path / "one", **kinds)
    Run(finished_run, workers=1).predict(many.images, tmp_path / "ray", engine="ray", **kinds)
    made = tree_bytes(tmp_path / "one")
    assert tree_bytes(tmp_path / "ray") == made and len(made) == 3 * 70 + 1


@pytest.mark.slow
@needs_ray
def test_objects_beyond_a_sample_are_labelled_as_in_one_process(
    own_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "BLOCK_ROWS", 600)
    monkeypatch.setattr(sampled, "FEW_ROWS", 100)
    monkeypatch.setattr("fastcomus.run.linking.BLOCK_ROWS", 600)
    file = tmp_path / "rows.npy"
    np.save(file, planted.gaussian(2000)[0].astype(np.float16))
    made: dict[str, tuple[dict[str, bytes], bytes]] = {}
    for engine in ("local", "ray"):
        run = Run(tmp_path / engine, preset="offline", device="cpu", workers=1)
        run.cluster(file, k=5, fit_on=300, engine=engine)
        made[engine] = tree_bytes(run.folder.path / "clusters"), run.assign(embeddings=file, engine=engine).read_bytes()
        assert not (run.folder.path / "fit").exists() and not (run.folder.path / "links-of-new").exists()
    assert made["ray"] == made["local"]
    with pytest.raises(InputError, match="give a file"):
        run.cluster(np.load(file), k=4, fit_on=300, engine="ray")


@pytest.mark.slow
@needs_ray
def test_what_an_actor_cannot_load_is_told_and_nothing_is_written(
    own_ray: None, many: Photographs, tmp_path: Path
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"none")
    run = Run(tmp_path / "run", preset="offline", settings=SHARDS, workers=1)
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        run.embed(many.images, engine="ray", encoder_weights=str(tmp_path / "weights.safetensors"))
    assert not (tmp_path / "run").exists()


@needs_ray
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_a_ray_of_our_own_talks_to_this_machine_alone(own_ray: None) -> None:
    """Every socket of its processes, bound or connected."""
    inodes = {
        os.readlink(link)
        for process in [os.getpid(), *processes_of(ray_scratch())]
        for link in Path(f"/proc/{process}/fd").iterdir()
        if os.path.islink(link)
    }
    seen = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes:
                seen += [fields[1].partition(":")[0], fields[2].partition(":")[0]]
    here = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    nowhere = {"0" * 8, "0" * 32}  # the other end of a socket that listens
    assert here & set(seen) and set(seen) <= here | nowhere
    assert set(seen[::2]) <= here


@pytest.mark.slow
@needs_ray
def test_embed_gives_the_bytes_of_one_process_though_the_run_is_stopped_and_an_actor_killed(
    own_ray: None, many: Photographs, one: dict[str, bytes], tmp_path: Path
) -> None:
    """The command with a Ray of its own and two actors is stopped at the first shard and leaves nothing behind. This
    process does the rest alone; so does one actor, which is killed once there is another shard."""
    run, scratch = tmp_path / "run", Path(tempfile.mkdtemp(prefix="t-"))  # short, as sockets lie in it
    (tmp_path / "settings.toml").write_text(tomli_w.dumps(SHARDS))
    command = [sys.executable, "-m", "fastcomus", "embed", str(many.images), "--run", str(run), "--workers", "1"]
    command += ["--config", str(tmp_path / "settings.toml"), "--preset", "offline", "--engine", "ray"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(scratch)})
    while not list((run / "objects").glob("part-*")) and started.poll() is None:
        time.sleep(0.02)
    inside = processes_of(str(scratch))
    started.send_signal(signal.SIGINT)
    told = started.communicate()[1].decode()
    assert started.returncode == 130 and "stopped; the same command goes on from here" in told, told
    assert len(told.splitlines()) <= 6, told  # nothing of Ray's own
    assert inside and not processes_of(str(scratch)) and not list(scratch.iterdir())
    scratch.rmdir()
    kept = {part: part.stat().st_mtime_ns for part in (run / "objects").glob("part-*")}
    assert len(kept) < 17

    alone = Path(shutil.copytree(run, tmp_path / "alone"))
    Run(alone, preset="offline", settings=SHARDS, device="cpu").embed(many.images)
    assert tree_bytes(alone) == one
    goes_on = Run(run, preset="offline", settings=SHARDS, workers=1)
    threading.Thread(target=kill_an_actor, args=(run / "objects", len(kept)), daemon=True).start()
    goes_on.embed(many.images, engine="ray")
    assert tree_bytes(run) == one and len(one) == 21
    assert len(goes_on.folder.read_table("objects/skipped.parquet")) == 2
    assert all(part.stat().st_mtime_ns == before for part, before in kept.items())


@needs_ray
@pytest.mark.parametrize(
    ("address", "device", "sign"),
    [
        ("127.0.0.1:1", "auto", r"no Ray cluster answers at 127\.0\.0\.1:1 \(Connection refused\)"),
        ("ray://127.0.0.1:10001", "auto", "must be auto or HOST:PORT"),
        ("node0", "auto", "must be auto or HOST:PORT"),
        ("", "cuda:1", "must be auto, cpu or cuda; got 'cuda:1'"),
        ("", "cpu,cpu", "must be auto, cpu or cuda; got 'cpu,cpu'"),
    ],
)
def test_bad_input_is_told_before_ray_starts(address: str, device: str, sign: str) -> None:
    with pytest.raises(InputError, match=sign):
        make_ray_engine(address, device, None)


def test_an_address_needs_an_engine_and_an_engine_its_package(
    photographs: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    with pytest.raises(InputError, match="add --engine ray"):
        run.embed(photographs.images, address="auto")
    with pytest.raises(InputError, match="did you mean ray"):
        run.embed(photographs.images, engine="rai")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs Ray; run pip install \"ray\[data\]\""):
        run.embed(photographs.images, engine="ray")
    assert not (tmp_path / "run").exists()


def test_machines_are_divided_among_actors() -> None:
    def nodes(*resources: dict) -> list[dict]:
        return [{"Alive": True, "Resources": one} for one in resources]

    dead = [{"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    assert plan_share(nodes({"CPU": 2.0}), "auto", None, 9) == Share(1, 2, False)
    assert plan_share(nodes({"CPU": 2.0}), "auto", 1, 9) == Share(2, 1, False)
    assert plan_share(nodes({"CPU": 64.0}, {"CPU": 6.0}) + dead, "auto", None, 99) == Share(17, 4, False)
    assert plan_share(nodes({"CPU": 64.0}), "auto", None, 3) == Share(3, 4, False)
    gpus = nodes({"CPU": 64.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0})
    assert plan_share(gpus, "auto", None, 99) == Share(12, 4, True)
    assert plan_share(gpus, "cuda", 8, 99) == Share(10, 8, True)
    assert plan_share(gpus, "cpu", 16, 99) == Share(6, 16, False)
    with pytest.raises(InputError, match="has no GPU"):
        plan_share(nodes({"CPU": 2.0}), "cuda", None, 9)
    with pytest.raises(InputError, match="lower --workers"):
        plan_share(nodes({"CPU": 2.0}), "auto", 3, 9)


def kill_an_actor(objects: Path, parts: int) -> None:
    while len(list(objects.glob("part-*"))) <= parts:
        time.sleep(0.02)
    actors = [one for one in processes_of(ray_scratch()) if "MapWorker" in command_line(one)]
    os.kill(actors[0], signal.SIGKILL)


def ray_scratch() -> str:
    import ray

    return ray._private.worker._global_node.get_session_dir_path()


def processes_of(sign: str) -> list[int]:
    """Processes with `sign` in their command line, and their children: Ray's workers give themselves other names."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    named = {one for one in parents if one != os.getpid() and sign in command_line(one)}
    return sorted(named | {one for one, parent in parents.items() if parent in named})


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
