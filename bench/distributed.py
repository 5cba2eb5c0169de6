"""Speed of `embed` and `predict` on Ray, and in a process per device, against one process on the same cores.

    python -m bench.distributed --data ../shared/data/msrc14/JPEGImages

Files are compared first. Ray and processes take seconds to start and to load networks, whatever the work, so each side
does a part of the images and then all of them, from nothing: what the further images take is its cost once warm, in
seconds on the clock, and in CPU-seconds of all its processes, which other work on the machine disturbs less. A ratio is
that of images per second (or per CPU-second) to those of one process, turn by turn. `predict` looks at every image
once, at one size, so that the engines' own cost shows most; its pieces are 64 images, and of a part with few of them
Ray may give two to one actor and none to another, which flatters what the further images take. A stage that is measured
replaces itself in the JSON.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from bench import harness
from bench.processes_cpu import watch_cpu
from fastcomus import Run
from fastcomus.images.folder import find_images
from fastcomus.segmentation.files import write_segmenter
from fastcomus.segmentation.segmenter import build_segmenter
from fastcomus.store.embeddings import extract_embeddings
from fastcomus.store.masks import read_class_map
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder

K = 14
SHARD_IMAGES = 16


def main() -> None:
    parser = harness.make_parser(__doc__, "distributed", data=None, count=494, repeats=3)
    parser.add_argument("--part", type=int, default=128, help="images of the smaller part")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="cores of this machine to use")
    parser.add_argument("--stages", nargs="*", default=["embed", "predict"])
    arguments = parser.parse_args()
    numbers, counts = harness.read_json(arguments.json), [arguments.part, arguments.count]
    torch.set_num_threads(arguments.cores)
    found = find_images(arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        lists = [Path(scratch, f"{count}.txt") for count in counts]
        for file, count in zip(lists, counts, strict=True):
            file.write_text("\n".join(str((found.root / name).resolve()) for name in found.names[:count]))
        make_trained_run(Path(scratch) / "trained")
        for stage in arguments.stages:
            sides = measure(stage, lists, Path(scratch), arguments.repeats, arguments.cores)
            about = {**harness.describe_run("cpu", "ray"), "cores": arguments.cores}
            numbers[stage] = {**about, "images": counts, "sides": sides}
            harness.write_json(arguments.json, numbers)
            harness.print_table(stage, [{"where": name, **side} for name, side in sides.items()])


def measure(stage: str, lists: list[Path], scratch: Path, repeats: int, cores: int) -> harness.Row:
    sides: dict[str, harness.Row] = {
        "one process": {"device": "cpu", "workers": cores},
        f"Ray, an actor of {cores} cores": {"engine": "ray", "workers": cores},
        f"Ray, {cores} actors": {"engine": "ray", "workers": 1},
        f"{cores} processes": {"device": ",".join(["cpu"] * cores)},
    }
    turns: dict[str, list[harness.Row]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, side in sides.items():
            places = [scratch / f"{stage}-{repeat}-{name}-{images.stem}" for images in lists]
            pairs = list(zip(lists, places, strict=True))
            part, whole = (do(stage, images, place, scratch / "trained", **side) for images, place in pairs)
            turns[name].append(compute_rates(whole, part, turns["one process"][repeat:]))
            harness.print_progress(stage, repeat, name, turns[name][-1])
            for images, place in pairs:
                check_same(scratch / f"{stage}-{repeat}-one process-{images.stem}", place)
    return {name: {one: statistics.median(turn[one] for turn in own) for one in own[0]} for name, own in turns.items()}


class Done(NamedTuple):
    """What `images` took, from nothing to the last file."""

    images: int
    seconds: float
    cpu_seconds: float


def compute_rates(whole: Done, part: Done, local: list[harness.Row]) -> harness.Row:
    """Rates of the images that `whole` has beyond `part`, and their ratios to those of one process in that turn.

    `start_s` is what the part takes beyond its images.
    """
    further = whole.images - part.images
    rate = further / (whole.seconds - part.seconds)
    cpu_rate = further / (whole.cpu_seconds - part.cpu_seconds)
    one = local[0] if local else {"images_per_s": rate, "images_per_cpu_s": cpu_rate}
    return {
        "images_per_s": rate,
        "images_per_cpu_s": cpu_rate,
        "start_s": part.seconds - part.images / rate,
        "ratio": rate / one["images_per_s"],
        "cpu_ratio": cpu_rate / one["images_per_cpu_s"],
    }


def do(
    stage: str, images: Path, place: Path, trained: Path, engine: str = "local", device: str = "auto", workers: int = 0
) -> Done:
    def work() -> None:
        if stage == "embed":
            files = map(Path, images.read_text().splitlines())
            folder = harness.link_images(files, place.with_name(f"{place.name}-images"))
            run = Run(place, preset="offline", device=device, workers=workers)
            run.embed(folder, engine=engine, shard_images=SHARD_IMAGES)
        else:
            run = Run(trained, device=device, workers=workers)
            run.predict(images, place, engine=engine, scales="1", flip=False)

    with watch_cpu() as watched:
        times = harness.time_once(work)
    return Done(len(images.read_text().splitlines()), times.median_s, watched.seconds)


def check_same(one: Path, other: Path) -> None:
    """The same files; rows and pixels may differ by what another number of threads does to the last bits."""
    names, others = ({str(file.relative_to(place)) for file in place.rglob("*.*")} for place in (one, other))
    assert names == others, (one, other)
    if (one / "objects").exists():
        table, its = (read_shards(RunFolder(place)) for place in (one, other))
        assert table.drop_columns("embedding").equals(its.drop_columns("embedding"))
        assert abs(extract_embeddings(table) - extract_embeddings(its)).max() < 1e-4
        return
    differing = total = 0
    for name in names:
        if name.endswith(".png"):
            labels, theirs = (read_class_map(RunFolder(place), name) for place in (one, other))
            differing, total = differing + int((labels != theirs).sum()), total + labels.size
    assert differing < 1e-4 * total, (differing, total)


def make_trained_run(folder: Path) -> None:
    """A run folder with all that `predict` needs, of a network with a fresh head."""
    run, written = Run(folder, preset="offline", seed=0), RunFolder(folder)
    run.workplace.remember(run.config)
    written.finish("clusters", "clusters", k=K, objects=0, images=True, source="")
    written.finish("iteration-0", "masks", follows="clusters")
    torch.manual_seed(0)
    write_segmenter(written, 1, build_segmenter("efficientnet-lite0", "", K, 16), "")
    facts = {"k": K, "backbone": "efficientnet-lite0", "output_stride": 16}
    written.finish("iteration-1", "network", follows="masks", **facts)


if __name__ == "__main__":
    main()
