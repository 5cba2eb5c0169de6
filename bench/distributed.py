"""Speed of `embed` and `predict` on Ray, and in a process per device, against one process on the same cores.

    python bench/distributed.py --data ../shared/data/msrc14/JPEGImages

Files are compared first. Ray and processes take seconds to start and to load networks, whatever the work, so each side
does a part of the images and then all of them, from nothing: what the further images take is its cost once warm, in
seconds on the clock, and in CPU-seconds of all its processes, which other work on the machine disturbs less. A ratio is
that of images per second (or per CPU-second) to those of one process, turn by turn. `predict` looks at every image
once, at one size, so that the engines' own cost shows most; its pieces are 64 images, and of a part with few of them
Ray may give two to one actor and none to another, which flatters what the further images take. What is measured
replaces the same in the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fastcomus import Run
from fastcomus.images.folder import find_images
from fastcomus.segmentation.files import write_segmenter
from fastcomus.segmentation.segmenter import build_segmenter
from fastcomus.store.masks import read_class_map
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder

K = 14
SHARD_IMAGES = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=494, help="images to use")
    parser.add_argument("--part", type=int, default=128, help="images of the smaller part")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cores of this machine to use")
    parser.add_argument("--stages", nargs="*", default=["embed", "predict"])
    parser.add_argument("--sides", nargs="*", type=int, default=[1, 2, 3], help="which, beside one process: 1 to 3")
    parser.add_argument("--json", type=Path, default=Path("bench/results/distributed.json"))
    arguments = parser.parse_args()
    numbers: dict[str, Any] = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    numbers["cores"], counts = arguments.cores, [arguments.part, arguments.count]
    torch.set_num_threads(arguments.cores)
    with tempfile.TemporaryDirectory() as scratch:
        names = find_images(arguments.data).names
        lists = [write_image_list(arguments.data, names[:count], Path(scratch)) for count in counts]
        make_trained_run(Path(scratch) / "trained")
        for stage in arguments.stages:
            sides = measure(stage, lists, Path(scratch), arguments.repeats, arguments.cores, arguments.sides)
            before = numbers.get(stage, {"images": counts, "sides": {}})
            sides = {**before["sides"], **sides} if before["images"] == counts else sides
            numbers[stage] = {"images": counts, "sides": sides}
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
            Console().print(build_table(stage, sides))


def measure(
    stage: str, lists: list[Path], scratch: Path, repeats: int, cores: int, chosen: list[int]
) -> dict[str, Any]:
    sides: dict[str, dict[str, Any]] = {
        "one process": {"device": "cpu", "workers": cores},
        f"Ray, an actor of {cores} cores": {"engine": "ray", "workers": cores},
        f"Ray, {cores} actors": {"engine": "ray", "workers": 1},
        f"{cores} processes": {"device": ",".join(["cpu"] * cores)},
    }
    sides = {name: side for number, (name, side) in enumerate(sides.items()) if number in (0, *chosen)}
    turns: dict[str, list[Cost]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for number, (name, side) in enumerate(sides.items()):
            part, whole = (
                do(stage, images, scratch / f"{stage}-{repeat}-{number}-{images.stem}", scratch / "trained", **side)
                for images in lists
            )
            turns[name].append(Cost(whole, part))
            print(stage, repeat, name, turns[name][-1].__dict__, flush=True)
            for images in lists:
                check_same(*(scratch / f"{stage}-{repeat}-{one}-{images.stem}" for one in (0, number)))
    local = turns["one process"]
    return {
        name: {
            "images_per_s": statistics.median(turn.images_per_s for turn in own),
            "images_per_cpu_s": statistics.median(turn.images_per_cpu_s for turn in own),
            "start_s": statistics.median(turn.start_s for turn in own),
            "ratio": statistics.median(
                turn.images_per_s / one.images_per_s for turn, one in zip(own, local, strict=True)
            ),
            "cpu_ratio": statistics.median(
                turn.images_per_cpu_s / one.images_per_cpu_s for turn, one in zip(own, local, strict=True)
            ),
        }
        for name, own in turns.items()
    }


class Done:
    """What `images` took, from nothing to the last file."""

    def __init__(self, images: int, seconds: float, cpu_seconds: float) -> None:
        self.images = images
        self.seconds = seconds
        self.cpu_seconds = cpu_seconds


class Cost:
    """Rates of the images that `whole` has beyond `part`; `start_s`: what the part takes beyond its images."""

    def __init__(self, whole: Done, part: Done) -> None:
        further = whole.images - part.images
        self.images_per_s = further / (whole.seconds - part.seconds)
        self.images_per_cpu_s = further / (whole.cpu_seconds - part.cpu_seconds)
        self.start_s = part.seconds - part.images / self.images_per_s


def do(
    stage: str, images: Path, place: Path, trained: Path, engine: str = "local", device: str = "auto", workers: int = 0
) -> Done:
    with watch_cpu() as watched:
        started = time.perf_counter()
        if stage == "embed":
            folder = link_images(images, place.with_name(f"{place.name}-images"))
            run = Run(place, preset="offline", device=device, workers=workers)
            run.embed(folder, engine=engine, shard_images=SHARD_IMAGES)
        else:
            run = Run(trained, device=device, workers=workers)
            run.predict(images, place, engine=engine, scales="1", flip=False)
        seconds = time.perf_counter() - started
    return Done(len(images.read_text().splitlines()), seconds, watched[0])


@contextmanager
def watch_cpu() -> Iterator[list[float]]:
    """CPU-seconds, by the end of the block, of this process and all that it started, while they were there."""
    most, ended, before = [0.0], threading.Event(), read_cpu_seconds()

    def watch() -> None:
        seen: dict[int, float] = {}
        while not ended.wait(0.2):
            seen |= read_cpu_seconds()
            most[0] = sum(now - before.get(process, 0.0) for process, now in seen.items())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def read_cpu_seconds() -> dict[int, float]:
    """Of this process and its children's children, by process."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(fields[1])
            used[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while more := {one for one, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {one: used[one] for one in ours if one in used}


def check_same(one: Path, other: Path) -> None:
    """The same files; rows and pixels may differ by what another number of threads does to the last bits."""
    names = [
        sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()) for place in (one, other)
    ]
    assert names[0] == names[1], (one, other)
    if (one / "objects").exists():
        rows, others = (read_shards(RunFolder(place)) for place in (one, other))
        assert rows.drop_columns("embedding").equals(others.drop_columns("embedding"))
        gap = (
            rows["embedding"].combine_chunks().values.to_numpy()
            - others["embedding"].combine_chunks().values.to_numpy()
        )
        assert abs(gap).max() < 1e-4
        return
    differing = total = 0
    for name in names[0]:
        if name.endswith(".png"):
            labels, theirs = (read_class_map(RunFolder(place), name) for place in (one, other))
            differing, total = differing + int((labels != theirs).sum()), total + labels.size
    assert differing < 1e-4 * total, (differing, total)


def build_table(stage: str, numbers: dict[str, Any]) -> Table:
    made = Table("where", "images/s", "ratio", "images per CPU-s", "ratio", "start, s", title=stage)
    for name, side in numbers.items():
        columns = ("images_per_s", "ratio", "images_per_cpu_s", "cpu_ratio", "start_s")
        made.add_row(name, *(f"{side[column]:.2f}" for column in columns))
    return made


def write_image_list(data: Path, names: tuple[str, ...], scratch: Path) -> Path:
    file = scratch / f"{len(names)}.txt"
    file.write_text("\n".join(str((data / name).resolve()) for name in names))
    return file


def link_images(images: Path, folder: Path) -> Path:
    """A folder of links to the images of a list."""
    folder.mkdir()
    for line in images.read_text().splitlines():
        (folder / Path(line).name).symlink_to(line)
    return folder


def make_trained_run(folder: Path) -> None:
    """A run folder with all that `predict` needs, of a network with a fresh head."""
    run, written = Run(folder, preset="offline", seed=0), RunFolder(folder)
    run._remember(run.config)
    written.finish("clusters", "clusters", k=K, objects=0, images=True, source="")
    written.finish("iteration-0", "masks", follows="clusters")
    torch.manual_seed(0)
    write_segmenter(written, 1, build_segmenter("efficientnet-lite0", "", K, 16), "")
    facts = {"k": K, "backbone": "efficientnet-lite0", "output_stride": 16}
    written.finish("iteration-1", "network", follows="masks", **facts)


if __name__ == "__main__":
    main()
