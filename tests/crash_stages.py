"""Every stage as a function of the folder it works in, small enough to be killed dozens of times."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conftest import BACKBONE, ENCODER, SALIENCY, make_photographs, tree_bytes
from fork_server import Trial

from fastcomus.cli.view.desk import Desk
from fastcomus.cli.view.training import Training
from fastcomus.run import iteration as round_of_training
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, to_toml, with_settings

SMALL = {
    "saliency": {
        **SALIENCY,
        "priors": "background-prior, minimum-barrier",
        "refine_epochs": 2,
        "epochs": 2,
        "size": 33,
        "common_features": False,  # else where the folder lies would be in what `assign` writes
        "least_images": 80,  # the same
    },
    "embed": {**ENCODER, "crop_size": 32, "shard_images": 3, "min_area": 100, "embed_batch": 2},
    "cluster": {"k": 3, "n_neighbors": 5, "n_init": 2},
    "train": {
        **BACKBONE,
        "train_size": 33,
        "iterations": 2,
        "epochs": 2,
        "next_epochs": 1,
        "batch_size": 4,
        "learning_rate": 1e-3,
    },
    "predict": {"predict_size": 33, "scales": "1", "flip": False},
}
IMAGES, OTHERS = 10, 5
EXPORTS_ONNX = "FASTCOMUS_TEST_ONNX"  # set where torch's exporter is to be warmed up as well, for seven seconds
EXPORTS = ("coco", "voc", "yolo", "labelme")


def embed(place: Path) -> None:
    _run(place).embed(place.parent / "images")


def embed_by_own_network(place: Path) -> None:
    """The photographs teach a network first."""
    run = _run(place)
    run.configure({"saliency": {"least_images": 5, "refine_epochs": 0, "common_features": True}})
    run.embed(place.parent / "images")


def cluster(place: Path) -> None:
    _run(place).cluster()


def cluster_otherwise(place: Path) -> None:
    """Puts clusters, network, masks and scores aside."""
    _run(place).cluster(k=2)


def train(place: Path) -> None:
    round_of_training.CHECKPOINT_S = 0.0  # a checkpoint behind every step, so that kills fall between them
    _run(place).train()


def predict(place: Path) -> None:
    _run(place).predict(place.parent / "others", overlay=True, probabilities=True)


def assign(place: Path) -> None:
    _run(place).assign(place.parent / "others")


def correct(place: Path) -> None:
    """What the server of `view` saves, each step once; then the command that makes up for kills."""
    run = _run(place)
    desk = Desk(run, Training([]))

    def save(**wanted: Any) -> dict[str, Any]:
        return desk.save({"clusters": desk.read_version()["clusters"], **wanted})

    if 0 not in desk.read_state()["corrected"]:
        save(do="move", objects=[0, 1], to="new")
    save(do="name", names={"0": 'a "cat"', "3": "own 😺"})
    if 5 not in desk.read_state()["corrected"]:
        save(do="move", objects=[5], to="-")
    save(do="name", names={"3": None})
    save(do="undo")
    run.cluster()


def evaluate(place: Path) -> None:
    for iteration in (0, 1, 2):
        _run(place).evaluate(place.parent / "truth", place.parent / "classes.txt", iteration)


def train_saliency(place: Path) -> None:
    _run(place).train_saliency(place.parent / "images", place / "own.safetensors")


def export(place: Path, kind: str) -> None:
    _run(place).export(kind)


def command(*line: str, checkpoint_s: float = 3600.0) -> None:
    """The command line, with so many seconds between checkpoints."""
    from fastcomus.cli import commands

    round_of_training.CHECKPOINT_S = checkpoint_s
    sys.argv = ["fastcomus", *line]
    commands.main()


def run_all(place: Path) -> None:
    given, settings = place.parent, place.parent / "settings.toml"
    settings.write_text(to_toml(with_settings(get_preset_config("offline"), SMALL)))
    line = ["run", given / "images", "--run", place, "--preset", "offline", "--config", settings, "--device", "cpu"]
    line += ["--truth", given / "truth", "--classes", given / "classes.txt"]
    command(*map(str, line), checkpoint_s=0.0)


# What each begins from: the folder after these stages.
STAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "run": (run_all, ()),
    "embed": (embed, ()),
    "embed-by-own-network": (embed_by_own_network, ()),
    "cluster": (cluster, ("embed",)),
    "cluster-otherwise": (cluster_otherwise, ("embed", "cluster", "train")),
    "train": (train, ("embed", "cluster")),
    "predict": (predict, ("embed", "cluster", "train")),
    "assign": (assign, ("embed", "cluster")),
    "correct": (correct, ("embed", "cluster")),
    "evaluate": (evaluate, ("embed", "cluster", "train")),
    "train-saliency": (train_saliency, ()),
    **{f"export-{kind}": (partial(export, kind=kind), ("embed", "cluster")) for kind in EXPORTS},
    "export-onnx": (partial(export, kind="onnx"), ("embed", "cluster", "train")),
}


@dataclass(frozen=True)
class Undisturbed:
    """A stage that nobody killed: the folder before it, every file after it, and the moments that passed."""

    stage: str
    before: Path
    after: dict[str, bytes]
    moments: int

    @property
    def work(self) -> Callable[[Path], None]:
        return STAGES[self.stage][0]

    def fresh(self, name: str) -> Path:
        """A new copy of the folder as it was before the stage."""
        place = self.before.parent / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.before, place)
        return place


class Workshop:
    """A folder with photographs and, made when first asked for, the folders that stages begin from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_photographs(root, IMAGES)
        others = make_photographs(root / "more", OTHERS)
        others.images.rename(root / "others")
        self._made: dict[tuple[str, ...], Path] = {}
        self._undisturbed: dict[str, Undisturbed] = {}

    def undisturbed(self, stage: str) -> Undisturbed:
        if stage not in self._undisturbed:
            work, earlier = STAGES[stage]
            before = self._after(earlier)
            place = self.root / f"undisturbed-{stage}"
            shutil.copytree(before, place)
            trial = Trial(work, place, watched=place)
            assert trial.exitcode == 0, trial.error
            self._undisturbed[stage] = Undisturbed(stage, before, tree_bytes(place), trial.moments)
        return self._undisturbed[stage]

    def _after(self, stages: tuple[str, ...]) -> Path:
        if stages not in self._made:
            place = self.root / "-".join(["after", *stages])
            if stages:
                shutil.copytree(self._after(stages[:-1]), place)
                trial = Trial(STAGES[stages[-1]][0], place, watched=place)
                assert trial.exitcode == 0, trial.error
            else:
                place.mkdir()
            self._made[stages] = place
        return self._made[stages]


def killed_until_done(undisturbed: Undisturbed, first: int, seed: int) -> Iterator[str]:
    """Start the stage, kill it at its moment `first`, start it again, sometimes kill that as well, and so on.

    Yields a word for each kill; the last one yielded is "same" or the names of the files that differ.
    """
    rng, place = random.Random(seed), undisturbed.fresh(f"{undisturbed.stage}-{seed}")
    moment = first
    for attempt in itertools.count():
        trial = Trial(undisturbed.work, place, watched=place, kill_at=moment, seed=seed + attempt)
        if not trial.was_killed:
            break
        yield "killed"
        moment = rng.randint(1, undisturbed.moments) if rng.random() < 0.3 else 0
    assert trial.exitcode == 0, f"{undisturbed.stage} killed at {first}: {trial.error}"
    after, wanted = (leave_out_times(files) for files in (tree_bytes(place), undisturbed.after))
    names = {name for name in {*after, *wanted} if after.get(name) != wanted.get(name)}
    if undisturbed.stage == "correct":
        names.discard("iteration-0/manifest.json")  # lists the corrections that the masks were brought up to
    shutil.rmtree(place)
    yield ", ".join(sorted(names)) or "same"


def leave_out_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """Files but for what says how long stages took, and the report's version, which tells for which that is known."""
    timed = {"report/index.html", "report/manifest.json", "report/data/version.js"}
    kept = {name: content for name, content in files.items() if name not in timed}
    if "report/data/run.js" in kept:
        kept["report/data/run.js"] = re.sub(rb'"version": ?"[^"]*"', b"", kept["report/data/run.js"])
    return kept


def warm_up(scratch: Path) -> None:
    """Everything once, in the process that all trials are forked from; what torch's exporter makes serves them all."""
    torch.set_num_threads(1)
    make_photographs(scratch, IMAGES)
    make_photographs(scratch / "more", OTHERS).images.rename(scratch / "others")
    place, export_program = scratch / "run", torch.onnx.export
    programs: list[Any] = []

    def export_once(*given: Any, **options: Any) -> Any:
        if not programs:
            programs.append(export_program(*given, **options))
        return programs[0]

    torch.onnx.export = export_once
    stages = ["embed", "cluster", "train", "predict", "assign", "evaluate", "export-voc"]
    for stage in stages + ["export-onnx"] * (EXPORTS_ONNX in os.environ):
        STAGES[stage][0](place)


def _run(place: Path) -> Run:
    return Run(place, preset="offline", settings=SMALL, device="cpu", workers=2)
