"""A small folder of made photographs with exact masks, and one finished run on it."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image, ImageDraw
from places import REFERENCE

if TYPE_CHECKING:
    from cuda_on_cpu.cpu_kernels import CpuKernels

settings.register_profile("all", deadline=None)  # how long an example takes says nothing on a busy machine
settings.register_profile("everyday", settings.get_profile("all"), max_examples=40)

# Torch and timm are imported where they are used: the process that only hands tests to workers does without them.
gc.disable()  # while tests are collected, which makes objects that stay

if "FASTCOMUS_TEST_SHARED" not in os.environ:  # what all workers and the processes that they start have in common
    os.environ["FASTCOMUS_TEST_SHARED"] = tempfile.mkdtemp(prefix="shared-")
    atexit.register(shutil.rmtree, os.environ["FASTCOMUS_TEST_SHARED"])
SHARED = Path(os.environ["FASTCOMUS_TEST_SHARED"])
os.environ["FASTCOMUS_WEIGHTS"] = f"{SHARED}/weights"

KINDS = ("circle", "square", "stripes")
BACKBONE = {
    "backbone": "test_efficientnet",
    "backbone_weights": f"{SHARED}/weights/test_efficientnet.safetensors",
}  # a step is five times as fast
ENCODER = {"encoder": BACKBONE["backbone"], "encoder_weights": BACKBONE["backbone_weights"]}
SALIENCY = {"network": BACKBONE["backbone"], "refine_backbone": BACKBONE["backbone"]}
TINY: dict[str, dict[str, Any]] = {
    "saliency": {"common_features": False, "least_images": 80},  # else each photograph's mask depends on all others
    "embed": {"crop_size": 32, "shard_images": 8, "min_area": 100, "embed_batch": 5},
    "cluster": {"k": 3, "n_neighbors": 6, "n_init": 3},
    "train": {
        **BACKBONE,
        "train_size": 65,
        "iterations": 2,
        "epochs": 2,
        "next_epochs": 2,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "precision": "float32",  # on every processor
    },
    "predict": {"predict_size": 65, "scales": "1"},
}


# Files whose tests fork one warm process; and those that take longest, begun first, so that all workers end together.
FORKING = ("tests/run/test_crash_safety.py", "tests/run/engines/test_several_devices.py", "tests/test_processes.py")
LONGEST = (*FORKING, "tests/run/engines/test_ray.py", "tests/bench/test_paper_tables.py", "tests/test_config.py")


@pytest.fixture(scope="session", autouse=True)
def _backbone_weights() -> None:
    """Timm's smallest network, at random."""
    import timm
    import torch
    from safetensors.torch import save_file

    def make(folder: Path) -> None:
        folder.mkdir()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            network = timm.create_model(BACKBONE["backbone"])
            for _ in range(30):  # batch statistics, without which random networks answer alike to all images
                network(torch.randn(4, 3, 65, 65))
        save_file(network.state_dict(), folder / Path(BACKBONE["backbone_weights"]).name)

    make_once("weights", make)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("everyday" if config.option.markexpr == "not slow" else "all")


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()  # what was imported is not looked through again and again
    gc.set_threshold(10_000, 10, 10)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file run in one worker, and those of all that fork a warm process too; the longest first."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return FORKING[0] if file in FORKING else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


@dataclass
class Photographs:
    """`images`/*.png, `truth`/*.png and `classes` (a file), 24 images of 96 x 80 px, 3 kinds of objects."""

    root: Path

    def __post_init__(self) -> None:
        self.images, self.truth, self.classes = (self.root / name for name in ("images", "truth", "classes.txt"))


def _only_this_machine(event: str, arguments: tuple) -> None:
    """Every connection that the suite makes, in its own process: to this machine, or it fails."""
    if event != "socket.connect":
        return
    connection, address = arguments
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if not (address[0] in ("localhost", "::1") or str(address[0]).startswith("127.")):
        raise AssertionError(f"a test reached for the network: {address}")


sys.addaudithook(_only_this_machine)
os.environ["FASTCOMUS_OFFLINE"] = "1"  # for fixtures and processes that are started too


@pytest.fixture
def weight_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, a network that may be asked, and no proxy on the way to this machine."""
    monkeypatch.setenv("FASTCOMUS_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("FASTCOMUS_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def kernels() -> CpuKernels:
    """The custom kernels, built for the CPU."""
    if not shutil.which("g++"):
        pytest.skip("there is no g++ to build the kernels for the CPU")
    from cuda_on_cpu.cpu_kernels import CpuKernels

    return CpuKernels()


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of timm's mobilenetv3_small_050, made on the spot."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("checkpoint") / "mobilenet.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), file)
    return str(file)


@pytest.fixture(scope="session")
def photographs() -> Photographs:
    return Photographs(make_once("photographs", lambda root: make_photographs(root, 24)))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    return make_photographs(tmp_path_factory.mktemp("few"), 12)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Images for five shards and two windows, two of them broken."""
    made = make_photographs(tmp_path_factory.mktemp("many"), 70)
    (made.images / "00a.png").write_bytes(b"no picture")
    (made.images / "69a.jpg").write_bytes((made.images / "69.png").read_bytes()[:300])
    return made


@pytest.fixture(scope="session")
def finished_run(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of all stages; copy it before changing it."""
    from fastcomus.run.run import Run

    def make(folder: Path) -> None:
        Run(folder, preset="offline", settings=TINY).run(photographs.images, photographs.truth, photographs.classes)

    return Path(shutil.copytree(make_once("finished", make), tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture(scope="session")
def reported_run(finished_run: Path) -> Path:
    """The same with a report, for what would write one; copy it before changing it."""
    from fastcomus.run.run import Run

    return make_once("reported", lambda folder: Run(shutil.copytree(finished_run, folder)).report())


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def make_once(name: str, make: Callable[[Path], Any]) -> Path:
    """What `make` writes at the path it is given, by the first worker that asks; to be left as it is."""
    made = SHARED / name
    with FileLock(f"{made}.lock"):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=SHARED) as scratch:
                make(Path(scratch) / name)
                (Path(scratch) / name).rename(made)
    return made


def closed_form() -> ModuleType:
    """The module that fills networks with weights in closed form."""
    spec = importlib.util.spec_from_file_location("closed_form", REFERENCE / "closed_form.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_photographs(root: Path, count: int) -> Photographs:
    made = Photographs(root)
    made.images.mkdir(parents=True)
    made.truth.mkdir()
    made.classes.write_text("\n".join(["background", *KINDS]))
    for index in range(count):
        rng = np.random.default_rng(index)
        pixels, mask = _photograph(index % len(KINDS), rng)
        Image.fromarray(pixels).save(made.images / f"{index:02d}.png")
        Image.fromarray(mask).save(made.truth / f"{index:02d}.png")
    return made


def _photograph(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    width, height, radius = 96, 80, int(rng.integers(16, 24))
    x, y = int(rng.integers(30, 66)), int(rng.integers(28, 52))
    shape = Image.new("L", (width, height))
    draw = ImageDraw.Draw(shape)
    (draw.ellipse if kind == 0 else draw.rectangle)((x - radius, y - radius, x + radius, y + radius), fill=255)
    mask = np.asarray(shape) > 0
    colour = np.array([(220, 40, 30), (30, 60, 220), (240, 230, 60)][kind])
    stripes = (np.arange(width) // 4 % 2 == 0) if kind == 2 else np.ones(width, bool)
    pixels = np.full((height, width, 3), (90, 120, 90), float)
    pixels[mask] = np.where(np.broadcast_to(stripes, mask.shape)[mask][:, None], colour, 20)
    pixels += rng.normal(0, 6, pixels.shape)
    return pixels.clip(0, 255).astype(np.uint8), np.where(mask, kind + 1, 0).astype(np.uint8)


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by name but what is measured on the clock: times.json, training.csv's last column."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: b"\n".join(line.rpartition(b",")[0] for line in content.splitlines())
        if name.endswith("training.csv")
        else content
        for name, content in files.items()
        if name.rpartition("/")[2] != "times.json" and not name.startswith("tensorboard/")
    }
