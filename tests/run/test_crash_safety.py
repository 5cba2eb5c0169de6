"""Kills at any moment, full disks, folders that cannot be written to, lost images, no memory, two at once, ctrl-C:
the same command, given again, ends with the bytes of a run that nothing disturbed.

bench/faults.py runs the test of kills with many more of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import fork_server
import pytest
from conftest import tree_bytes
from crash_stages import EXPORTS_ONNX, SMALL, STAGES, Undisturbed, Workshop, command, killed_until_done
from fork_server import Trial
from PIL import Image

from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, to_toml, with_settings
from fastcomus.store.run_folder import RunFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server and its limits are Linux's")

KILLS = int(os.environ.get("FASTCOMUS_TEST_KILLS", "0"))  # of every stage; 0: the usual two
WIDER = ("run", "export-yolo", "export-labelme", "export-onnx")  # stages in a row; what writes as coco and voc do
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(scope="module")
def workshop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if any("export-onnx" in item.name for item in request.session.items):
        os.environ[EXPORTS_ONNX] = "1"
    fork_server.prepare()
    return Workshop(tmp_path_factory.mktemp("crashes") / "workshop")


@pytest.mark.parametrize("stage", [pytest.param(one, marks=[pytest.mark.slow] * (one in WIDER)) for one in STAGES])
def test_killed_stages_go_on_to_the_same_bytes(stage: str, workshop: Workshop, record_property: Callable) -> None:
    """At a random moment, and at the last one; at a random one alone where the parts are killed one by one elsewhere.

    With `KILLS`, at that many moments all over it.
    """
    undisturbed = workshop.undisturbed(stage)
    rng, last = random.Random(stage), undisturbed.moments
    firsts = [rng.randint(1, last)] + [last] * (stage not in ("run", "embed-by-own-network"))
    if KILLS:
        firsts = [1 + int((place + rng.random()) / KILLS * last) for place in range(KILLS)]
    ends, total = [], 0
    for seed, first in enumerate(firsts):
        # Threads of an export may find a folder made already, and then there are a few moments fewer.
        for moment in range(first, max(0, first - 20), -1):
            *kills, end = killed_until_done(undisturbed, moment, seed)
            ends.append(end)
            total += len(kills)
            if kills:
                break
        assert kills
    differing = [end for end in ends if end != "same"]
    told = {"trials": len(firsts), "kills": total, "differing": len(differing), "moments": last}
    for name, value in {**told, "differences": "; ".join(differing)}.items():
        record_property(name, value)
    assert not differing


@contextmanager
def disk(place: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of so many bytes at `place`."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    "stage",
    [
        *("embed", "cluster", "train", "predict"),
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("cluster-otherwise", "train-saliency")),
    ],
)
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(stage: str, workshop: Workshop) -> None:
    undisturbed = workshop.undisturbed(stage)
    before = sum(map(len, tree_bytes(undisturbed.before).values()))
    after = sum(map(len, undisturbed.after.values()))
    with disk(workshop.root / f"disk-{stage}", 2**30) as place:
        for entry in ("images", "others"):
            (place / entry).symlink_to(workshop.root / entry)
        run = undisturbed.fresh("for-the-disk")
        subprocess.run(["cp", "-a", str(run), str(place / "run")], check=True)
        files = sum(len(names) for _, _, names in os.walk(place))
        used = int(subprocess.run(["df", "--output=used", "-B1", place], capture_output=True).stdout.split()[1])
        room = used + (after - before) // 3 + 2**12 * min(files, 8)
        subprocess.run(["mount", "-o", f"remount,size={room}", str(place)], check=True)
        trial = Trial(undisturbed.work, place / "run", watched=place)
        assert trial.code == 2 and "cannot be written (No space left on device)" in trial.error, trial
        subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
        assert Trial(undisturbed.work, place / "run", watched=place).exitcode == 0
        assert tree_bytes(place / "run") == undisturbed.after


@pytest.mark.parametrize("stage", ["embed", "train-saliency"])
def test_files_that_must_not_grow_are_one_sentence(stage: str, workshop: Workshop) -> None:
    """What a quota does to every library that writes: the file gets so many bytes and no more."""
    undisturbed = workshop.undisturbed(stage)
    largest = max(len(undisturbed.after[name]) for name in undisturbed.after)
    for share in (0.0, 0.6):
        place = undisturbed.fresh("quota")
        trial = Trial(undisturbed.work, place, watched=place, file_bytes=int(share * largest))
        assert trial.code == 2 and "cannot be written (" in trial.error and "\n" not in trial.error, trial.error
        assert Trial(undisturbed.work, place, watched=place).exitcode == 0
        assert tree_bytes(place) == undisturbed.after


@pytest.mark.parametrize("stage", ["embed", "cluster", "train"])
def test_a_folder_that_cannot_be_written_to_is_one_sentence(stage: str, workshop: Workshop) -> None:
    undisturbed = workshop.undisturbed(stage)
    place = undisturbed.fresh("read-only")
    before = tree_bytes(place)
    if IS_ROOT:  # who may write whatever the modes say, but not to a file system that is mounted read-only
        bound = subprocess.run(["mount", "--bind", place, place], capture_output=True, check=False)
        if bound.returncode:
            pytest.skip("no file system may be mounted here")
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    else:
        for folder, _, _ in os.walk(place):
            os.chmod(folder, 0o500)
    try:
        trial = Trial(undisturbed.work, place, watched=place)
    finally:
        if IS_ROOT:
            subprocess.run(["umount", "-l", place], check=True)
        else:
            for folder, _, _ in os.walk(place):
                os.chmod(folder, 0o700)
    assert trial.code == 2 and "cannot be written (" in trial.error, trial.error
    assert tree_bytes(place) == before


def move_at(moment: int, source: Path, target: Path, now: int) -> None:
    if now == moment:
        source.rename(target)


@pytest.mark.parametrize("stage", ["embed", "train", "predict"])
def test_an_image_that_is_lost_in_mid_run_is_taken_when_it_is_back(stage: str, workshop: Workshop) -> None:
    undisturbed = workshop.undisturbed(stage)
    images = workshop.root / ("others" if stage == "predict" else "images")
    image, elsewhere = max(images.iterdir()), workshop.root / "elsewhere.png"
    place = undisturbed.fresh("lost")
    try:
        trial = Trial(undisturbed.work, place, watched=place, on_moment=partial(move_at, 4, image, elsewhere))
        assert elsewhere.exists()
        if stage == "train":
            assert trial.code == 2 and "1 of 10 photographs are no longer in" in trial.error, trial.error
        else:
            assert trial.exitcode == 0, trial.error
            assert tree_bytes(place) != undisturbed.after
    finally:
        elsewhere.rename(image)
    again = Trial(undisturbed.work, place, watched=place)
    assert again.exitcode == 0, again.error
    assert tree_bytes(place) == undisturbed.after


def embed_with_settings(place: Path, images: Path, max_pixels: int) -> None:
    Run(place, preset="offline", settings=SMALL, device="cpu", workers=2).embed(images, max_pixels=max_pixels)


def test_no_memory_is_one_sentence_with_a_code_of_its_own(workshop: Workshop, tmp_path: Path) -> None:
    """The image is not to blame, so it is not left out. (A kill by the system for want of memory is as those above.)"""
    images = Path(shutil.copytree(workshop.root / "images", tmp_path / "images"))
    Image.new("1", (13_000, 13_000)).save(images / "05-large.png")
    place = tmp_path / "run"
    trial = Trial(embed_with_settings, place, images, 2**31, watched=place, memory_bytes=2**28)
    assert trial.code == 3 and "memory ran out" in trial.error and "\n" not in trial.error, (trial.code, trial.error)
    assert not (place / "objects/manifest.json").exists()
    trial = Trial(embed_with_settings, place, images, 2**20, watched=place)
    assert trial.code == 0 and len(list((place / "objects").glob("part-*"))) == 4


def test_of_two_processes_one_is_told_and_leaves(workshop: Workshop, tmp_path: Path) -> None:
    undisturbed = workshop.undisturbed("cluster")
    place = undisturbed.fresh("two")
    with RunFolder(place).writer.hold():
        trial = Trial(undisturbed.work, place, watched=place)
    assert trial.code == 2 and f"in use by process {os.getpid()} on " in trial.error
    assert Trial(undisturbed.work, place, watched=place).exitcode == 0
    assert tree_bytes(place) == undisturbed.after


@pytest.mark.parametrize("stage", ["embed", "cluster"])
def test_two_processes_at_once_end_with_the_bytes_of_one(stage: str, workshop: Workshop) -> None:
    undisturbed = workshop.undisturbed(stage)
    place = undisturbed.fresh("both")
    with ThreadPoolExecutor(2) as pool:
        trials = list(pool.map(lambda _: Trial(undisturbed.work, place, watched=place), range(2)))
    assert sorted(trial.code for trial in trials) in ([0, 0], [0, 2])
    assert all("in use by" in trial.error for trial in trials if trial.code)
    assert tree_bytes(place) == undisturbed.after


def interrupt_at(moments: tuple[int, ...], now: int) -> None:
    if now in moments:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("stage", ["embed", "train", "predict"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_ends_at_a_safe_point_and_twice_at_once(
    stage: str, times: int, workshop: Workshop, tmp_path: Path
) -> None:
    undisturbed = workshop.undisturbed(stage)
    place = undisturbed.fresh("interrupted")
    (tmp_path / "settings.toml").write_text(to_toml(with_settings(get_preset_config("offline"), SMALL)))
    line = [
        stage,
        *{"embed": [str(workshop.root / "images")], "predict": [str(workshop.root / "others")]}.get(stage, []),
    ]
    line += ["--run", str(place), "--config", str(tmp_path / "settings.toml"), "--preset", "offline"]
    line += ["--overlay", "--probabilities"] if stage == "predict" else []
    middle = undisturbed.moments // 2 if stage != "train" else 12
    asked = tuple(range(middle, middle + times))
    trial = Trial(command, *line, watched=place, on_moment=partial(interrupt_at, asked))
    assert trial.code == 130
    finished = {"embed": "objects", "train": "iteration-2", "predict": "predictions"}[stage]
    assert not (place / finished / "manifest.json").exists()
    if stage == "train" and times == 1:
        assert (place / "iteration-1/checkpoint.pt").exists()
    assert Trial(undisturbed.work, place, watched=place).exitcode == 0
    assert tree_bytes(place) == undisturbed.after


def test_a_killed_writer_leaves_no_lock(workshop: Workshop) -> None:
    undisturbed: Undisturbed = workshop.undisturbed("cluster")
    place = undisturbed.fresh("killed-writer")
    assert Trial(undisturbed.work, place, watched=place, kill_at=20).was_killed
    assert (place / ".writer.json").exists()  # which says nothing without the lock of the system
    assert Trial(undisturbed.work, place, watched=place).exitcode == 0
    assert not list(place.glob(".writer*"))
