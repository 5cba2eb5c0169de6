"""Frames of a video as images, and lists of images in the JSON of other tools."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from conftest import TINY, Photographs
from PIL import Image

from fastcomus import InputError, Run
from fastcomus.images import videos
from fastcomus.images.found import UnreadableImage
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.reading import read_image


def write_video(file: Path, frames: int, rate: int = 10) -> None:
    """Frame i is grey, 2 i + 20 bright."""
    av = pytest.importorskip("av")
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.bit_rate, stream.gop_size = 96, 64, 2_000_000, 12
        for number in range(frames):
            pixels = np.full((64, 96, 3), 2 * number + 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mov"])
def test_frames_are_those_of_the_video_in_any_order_and_by_several_threads(ending: str, tmp_path: Path) -> None:
    write_video(tmp_path / f"clip.{ending}", 100)
    found = find_listed_images(tmp_path / f"clip.{ending}", 0.5)
    numbers = list(range(0, 100, 5))
    assert list(found.names) == [f"clip.{ending}/{number:06d}.png" for number in numbers]
    root = open_root(str(found.root), found.names)

    def measure(name: str) -> float:
        return float(read_image(root / name, 10_000).mean())

    shuffled = np.random.default_rng(0).permutation(len(numbers))
    for names in (found.names, [found.names[one] for one in shuffled]):
        with ThreadPoolExecutor(4) as threads:
            bright = list(threads.map(measure, names))
        assert np.abs(np.array(bright) - [2 * int(name[-10:-4]) + 20 for name in names]).max() < 2
    assert len(find_listed_images(tmp_path / f"clip.{ending}", 0).names) == 100
    assert len(find_listed_images(tmp_path / f"clip.{ending}").names) == 10
    with pytest.raises(UnreadableImage, match="max_pixels"):
        read_image(root / found.names[0], 1000)


def choose_by_adding(times: list[int], time_base: Fraction, every_seconds: float) -> list[int]:
    """The definition: frame after frame, the next moment moves on until it lies ahead."""
    seconds, chosen = 0.0, []
    for number, time in enumerate(times):
        shown = float((time - times[0]) * time_base)
        if shown >= seconds - 1e-6:
            chosen.append(number)
            while every_seconds and seconds <= shown + 1e-6:
                seconds += every_seconds
    return chosen


def test_frames_are_chosen_as_by_adding_seconds() -> None:
    rng = random.Random(0)
    for _ in range(300):
        rate = Fraction(rng.choice(["24", "25", "30", "30000/1001", "10", "60"]))
        time_base = rng.choice([Fraction(1, 90_000), Fraction(1, 1000), Fraction(1, 12_800), 1 / rate])
        times = sorted({round(one / rate / time_base) + 77 + rng.randrange(2) for one in range(400)})
        usual = rng.choice([0, 0.04, 0.1, 1 / 3, 0.5, 1, 1001 / 30_000, 2, 60, 1e-4])
        for every in (usual, rng.uniform(0.01, 3)):
            assert videos._choose_frames(times, time_base, every) == choose_by_adding(times, time_base, every)


@pytest.mark.parametrize("every_seconds", [5e-324, 1e-9, 1e-6, 2e-6])
def test_less_than_a_frame_takes_every_frame_at_once(every_seconds: float) -> None:
    times = list(range(0, 3000 * 100_000, 3000))
    assert len(videos._choose_frames(times, Fraction(1, 90_000), every_seconds)) == 100_000


def test_several_threads_may_ask_for_one_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mkv", 30)
    found = find_listed_images(tmp_path / "clip.mkv", 0)
    together = Barrier(4)

    def read(number: int) -> list[float]:
        together.wait()
        return [float(read_image(found.root / name, 10_000).mean()) for name in found.names[number % 2 :: 7]]

    with ThreadPoolExecutor(4) as threads:
        bright = list(threads.map(read, [0, 0, 1, 0]))
    for number, one in zip([0, 0, 1, 0], bright, strict=True):
        assert np.abs(np.array(one) - [2 * frame + 20 for frame in range(number, 30, 7)]).max() < 2
    for video in videos._videos.values():
        assert not video._wanted and not video._made  # nothing is kept for ever


def test_a_video_is_embedded_and_labelled_like_a_folder(photographs: Photographs, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    files = sorted(photographs.images.iterdir())[:6]
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("png", rate=2)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "rgb24"
        for file in files:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(Image.open(file).convert("RGB")))))
        container.mux(stream.encode())
    run, alone = (Run(tmp_path / name, preset="offline", settings=TINY, device="cpu") for name in ("run", "alone"))
    assert run.embed(tmp_path / "clip.mov", every_seconds=0.5).images == 6
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    alone.embed(tmp_path / "list.txt")
    assert run.objects()["mask"].equals(alone.objects()["mask"])
    run.cluster(k=2)
    assert (tmp_path / "run/iteration-0/masks/clip.mov/000003.png.png").is_file()
    assert run.embed(tmp_path / "clip.mov", every_seconds=0.5).images == 6  # up to date


def test_what_is_no_video_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_text("no video")
    if videos.find_spec("av"):
        with pytest.raises(InputError, match=r"clip\.mp4 cannot be read as a video"):
            find_listed_images(tmp_path / "clip.mp4")
    monkeypatch.setattr(videos, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"need PyAV; run pip install av"):
        find_listed_images(tmp_path / "clip.mp4")
    with pytest.raises(InputError, match=r"it holds 1 \.mp4"):
        find_listed_images(tmp_path)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (
            "annotations/instances.json",
            {"images": [{"id": 1, "file_name": "one.png"}, {"id": 2, "file_name": "two.png"}]},
        ),
        ("train.json", {"images": [{"file_name": "images\\one.png"}, {"file_name": ".\\images\\two.png"}]}),
        ("samples.json", {"samples": [{"filepath": "images/one.png"}, {"filepath": "images/two.png"}]}),
    ],
)
def test_json_of_other_tools_lists_images(place: str, content: dict[str, Any], tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"images/{name}.png")
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    found = find_listed_images(file)
    assert found.root == tmp_path / "images" and found.names == ("one.png", "two.png")


def test_json_without_images_is_told(tmp_path: Path) -> None:
    for content, told in (
        ("{}", "lists no image: it needs COCO's images"),
        ("[1", "is no JSON that can be read"),
        ('{"images": [{"file_name": "gone.png"}]}', "lists gone.png, which lies neither here nor in"),
    ):
        (tmp_path / "list.json").write_text(content)
        with pytest.raises(InputError, match=told):
            find_listed_images(tmp_path / "list.json")
