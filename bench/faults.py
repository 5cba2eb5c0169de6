"""Kills and hostile files: does a run always end as if nothing had happened, and within its memory?

    python -m bench.faults --kills 200 --files 10000

First every stage is killed at moments spread over all of it, started again until it is through, and the run folder
compared with that of a run that nobody disturbed, byte for byte. A moment passes whenever Python opens a file of the
run folder for writing, or renames, removes or makes something there; what was being written is cut at a random place.
Then hostile files go through `embed`, and as many good ones for their peak memory. Linux only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench import harness
from fastcomus.cli.demo.scenes import make_scenes
from fastcomus.images.folder import find_images
from fastcomus.images.found import UnreadableImage
from fastcomus.images.reading import read_image
from fastcomus.run import iteration as round_of_training
from fastcomus.run.contents import read_skipped
from fastcomus.run.run import Run

MAX_PIXELS = 2_000_000
SMALL = {
    "saliency": {"priors": "background-prior, minimum-barrier", "refine_epochs": 2, "epochs": 2, "size": 33},
    "embed": {"crop_size": 32, "shard_images": 3, "min_area": 50, "embed_batch": 2},
    "cluster": {"k": 3, "n_neighbors": 5, "n_init": 2},
    "train": {"train_size": 33, "epochs": 2, "next_epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
    "predict": {"predict_size": 33, "scales": "1", "flip": False},
}
CHANGES = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "shutil.rmtree": 0}  # event: place of the path
Work = Callable[[Run, Path], object]
# Stage -> its work, the stages before it, and its share of the kills: long stages have more to lose.
STAGES: dict[str, tuple[Work, tuple[str, ...], int]] = {
    "embed": (lambda run, images: run.embed(images), (), 5),
    "cluster": (lambda run, images: run.cluster(), ("embed",), 6),
    "train": (lambda run, images: run.train(), ("embed", "cluster"), 5),
    "predict": (
        lambda run, images: run.predict(images, overlay=True, probabilities=True),
        ("embed", "cluster", "train"),
        6,
    ),
    "assign": (lambda run, images: run.assign(images), ("embed", "cluster"), 3),
    "evaluate": (
        lambda run, images: [run.evaluate(images.with_name("truth"), iteration=one) for one in range(3)],
        ("embed", "cluster", "train"),
        4,
    ),
    "train-saliency": (lambda run, images: run.train_saliency(images), (), 5),
    **{
        f"export-{kind}": (lambda run, images, kind=kind: run.export(kind), ("embed", "cluster"), share)
        for kind, share in (("coco", 2), ("voc", 3), ("yolo", 2), ("labelme", 2))
    },
    "export-onnx": (lambda run, images: run.export("onnx"), ("embed", "cluster", "train"), 1),
}


def main() -> None:
    parser = harness.make_parser(__doc__, "faults", seed=0)
    parser.add_argument("--kills", type=int, default=200, help="at least so many")
    parser.add_argument("--stages", nargs="*", default=list(STAGES), choices=list(STAGES), metavar="STAGE")
    parser.add_argument("--files", type=int, default=10_000, help="hostile ones, and as many good ones")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # before anything is forked
    os.environ["FASTCOMUS_OFFLINE"] = "1"
    stored = harness.read_json(arguments.json)
    parts = {
        "kills": lambda scratch: run_kills(arguments.kills, arguments.stages, arguments.seed, scratch),
        "files": lambda scratch: run_hostile_files(arguments.files, arguments.seed, scratch),
    }
    for part, work in parts.items():
        if getattr(arguments, part):
            with tempfile.TemporaryDirectory() as scratch:
                stored[part] = {**harness.describe_run("cpu", "pillow"), **work(Path(scratch))}
            harness.write_json(arguments.json, stored)


# -- kills -----------------------------------------------------------------------------------------------------------


def run_kills(wanted: int, stages: list[str], seed: int, scratch: Path) -> harness.Row:
    """Kills by stage, and which folders differed in the end."""
    make_scenes(scratch / "made", 10, seed)
    rng, shares, done, differing = random.Random(seed), sum(STAGES[one][2] for one in stages), {}, []
    for stage in stages:
        work, earlier, share = STAGES[stage]
        before = prepare_folder(scratch, earlier)
        after, moments, _ = run_stage(work, scratch, before, scratch / "undisturbed")
        trials = -(-wanted * share // shares)
        mine = done[stage] = {"trials": trials, "kills": 0, "differing": 0, "moments": moments}
        for trial in range(trials):
            kill_at = 1 + int((trial + rng.random()) / trials * moments)
            found, _, kills = run_stage(work, scratch, before, scratch / "killed", kill_at, random.Random(seed + trial))
            names = sorted(name for name in {*found, *after} if found.get(name) != after.get(name))
            mine["kills"] += kills
            mine["differing"] += bool(names)
            differing += [f"{stage} at {kill_at}: {', '.join(names)}"] if names else []
        harness.print_progress(stage, mine)
    total = {name: sum(one[name] for one in done.values()) for name in ("trials", "kills", "differing")}
    harness.print_progress("all stages", total, *differing)
    return {**total, "stages": done, "differences": differing}


def prepare_folder(scratch: Path, stages: tuple[str, ...]) -> Path:
    """The run folder after these stages, made when it is first asked for."""
    place = scratch / "-".join(["after", *stages])
    if not stages:
        place.mkdir(exist_ok=True)
    elif not place.exists():
        run_stage(STAGES[stages[-1]][0], scratch, prepare_folder(scratch, stages[:-1]), place)
    return place


def run_stage(
    work: Work, scratch: Path, before: Path, place: Path, kill_at: int = 0, rng: random.Random | None = None
) -> tuple[dict[str, bytes], int, int]:
    """Do a stage in a copy of `before`: files, moments that passed, kills.

    It is killed at its moment `kill_at`, started again, sometimes killed once more, and so on until it is through.
    """
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(before, place)
    context, first, kills = multiprocessing.get_context("fork"), kill_at, 0
    while True:
        moments = context.Value("i", 0)
        cut = rng.random() if rng else 0.0
        process = context.Process(target=do_stage, args=(work, scratch, place, moments, kill_at, cut))
        process.start()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            break
        kills += 1
        kill_at = rng.randint(1, 2 * first) if rng and rng.random() < 0.3 else 0
    if process.exitcode:
        raise SystemExit(f"a stage failed: exit code {process.exitcode}")
    return read_tree(place), moments.value, kills


def do_stage(work: Work, scratch: Path, place: Path, moments: Any, kill_at: int, cut: float) -> None:
    def watch(event: str, given: tuple) -> None:
        if event == "open":
            path, _, flags = given
            is_change = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            is_change = event in CHANGES
            path = given[CHANGES[event]] if is_change else None
        if not is_change or not isinstance(path, str | Path) or not str(path).startswith(str(place)):
            return
        moments.value += 1
        if moments.value == kill_at:
            source = str(given[0])
            if event == "os.rename" and source.endswith(".unfinished"):
                with contextlib.suppress(OSError):
                    if os.stat(source).st_nlink == 1:  # noqa: PTH116  a link is there whole
                        os.truncate(source, int(cut * (os.path.getsize(source) + 1)))  # noqa: PTH202
            os.kill(os.getpid(), signal.SIGKILL)

    logging.disable(logging.CRITICAL)
    round_of_training.CHECKPOINT_S = 0.0  # a checkpoint behind every step, so that kills fall between them
    sys.addaudithook(watch)
    work(Run(place, preset="offline", settings=SMALL, device="cpu", workers=2), scratch / "made" / "images")


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file by name, but for what is measured on the clock: times.json and training.csv's last column."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in [name for name in files if name.endswith("training.csv")]:
        files[name] = b"\n".join(line.rpartition(b",")[0] for line in files[name].splitlines())
    return {name: content for name, content in files.items() if not name.endswith("times.json")}


# -- hostile files ---------------------------------------------------------------------------------------------------


def run_hostile_files(count: int, seed: int, scratch: Path) -> harness.Row:
    """What became of `count` hostile files, the slowest of them, and peak memory against as many good ones."""
    makers = {"hostile": HOSTILE, "good": {"whole": make_whole}}
    made = {name: write_files(scratch / name, count, seed, kinds) for name, kinds in makers.items()}
    before = list_files(scratch)
    found = {name: harness.run_apart(embed_files, scratch / name, scratch / f"run-{name}") for name in made}
    slowest = max((time_reading(path) for path in find_paths(scratch / "hostile")), default=(0.0, ""))
    numbers = {
        **found,
        "memory_ratio": round(found["hostile"]["peak_bytes"] / found["good"]["peak_bytes"], 3),
        "made": made["hostile"],
        "touched_outside": list_files(scratch) != before,
        "slowest": {"seconds": round(slowest[0], 3), "file": slowest[1]},
    }
    harness.print_progress(numbers)
    return numbers


def embed_files(images: Path, run: Path) -> harness.Row:
    settings = {**SMALL, "embed": {**SMALL["embed"], "shard_images": 256, "embed_batch": 32}}
    made = Run(run, preset="offline", settings=settings, device="cpu", workers=2)
    times = harness.time_once(partial(made.embed, images, max_pixels=MAX_PIXELS))
    reasons = Counter(row["reason"] for row in read_skipped(made.folder).to_pylist())
    told = {name: getattr(times.result, name) for name in ("images", "objects", "skipped")}
    peak = int(harness.measure_peak_mib() * 2**20)
    return {**told, "reasons": dict(reasons), "peak_bytes": peak, "elapsed_s": round(times.median_s, 1)}


def time_reading(path: Path) -> tuple[float, str]:
    started = time.process_time()
    with contextlib.suppress(UnreadableImage):
        read_image(path, MAX_PIXELS)
    return time.process_time() - started, ascii(path.name)


def find_paths(images: Path) -> list[Path]:
    return [images / name for name in find_images(images).names]


def list_files(scratch: Path) -> list[tuple[str, int]]:
    """Every file beside the run folders, with its time of change."""
    entries = (path for name in ("hostile", "good") for path in (scratch / name).rglob("*"))
    return sorted((ascii(path), path.lstat().st_mtime_ns) for path in entries)


def write_files(
    root: Path, count: int, seed: int, kinds: dict[str, Callable[[random.Random], bytes]]
) -> dict[str, int]:
    """`count` files under `root`, and for hostile ones a few things that are no files; how many of each kind."""
    rng, names = random.Random(seed), list(kinds)
    for index in range(count):
        folder = root / f"{index // 500:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        stem = (
            rng.choice(["", "", 'o\'ne "two"\n', "%s%n", "back\\slash", "ünï-图片", "x" * 200])
            if len(names) > 1
            else ""
        )
        ending = rng.choice(["jpg", "PNG", "webp", "tif", "gif", "bmp"])
        (folder / f"{stem}{index:06d}.{ending}").write_bytes(kinds[names[index % len(names)]](rng))
    made = dict(Counter(names[index % len(names)] for index in range(count)))
    if len(names) > 1:
        os.mkfifo(root / "pipe.jpg")
        for name, target in (
            ("device.jpg", "/dev/zero"),
            ("gone.jpg", "absent"),
            ("self.jpg", "self.jpg"),
            ("up", ".."),
        ):
            (root / name).symlink_to(target)
        (root / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"\xff\xd8")
        made["no files"] = 6
    return made


def draw_image(rng: random.Random) -> Image.Image:
    """A bright object on a dull ground, so that it has a salient region."""
    pixels = np.random.default_rng(rng.getrandbits(32)).normal((90, 120, 90), 6, (96, 96, 3))
    x, y, side = rng.randrange(20, 50), rng.randrange(20, 50), rng.randrange(16, 30)
    pixels[y : y + side, x : x + side] = [rng.randrange(256) for _ in range(3)]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def make_whole(rng: random.Random) -> bytes:
    return encode(draw_image(rng), rng.choice(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]))


def make_truncated(rng: random.Random) -> bytes:
    whole = make_whole(rng)
    return whole[: rng.randrange(len(whole))]


def make_flipped(rng: random.Random) -> bytes:
    changed = bytearray(make_whole(rng))
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        changed[rng.randrange(min(len(changed), rng.choice([200, 10**9])))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def make_spliced(rng: random.Random) -> bytes:
    whole, other = make_whole(rng), make_whole(rng)
    first, second = sorted(rng.randrange(len(whole)) for _ in range(2))
    return whole[:first] + rng.choice([b"", whole[first:second] * 2, other, bytes(second - first)]) + whole[second:]


def make_bomb(rng: random.Random) -> bytes:
    """Few bytes that promise, or unpack to, far more pixels."""
    side = rng.choice([8, 20_000, 65_535, 2**31 - 1])

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    data = zlib.compress(bytes(2**24), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def make_odd_shape(rng: random.Random) -> bytes:
    return encode(Image.new("RGB", rng.choice([(1, 1), (65_000, 1), (1, 65_000), (3, 1), (2_000, 3)])), "PNG")


def make_odd_mode(rng: random.Random) -> bytes:
    mode, kind = rng.choice(
        [("CMYK", "JPEG"), ("F", "TIFF"), ("LAB", "TIFF"), ("1", "PNG"), ("LA", "PNG"), ("P", "GIF")]
    )
    return encode(draw_image(rng).convert(mode), kind)


def make_animated(rng: random.Random) -> bytes:
    frames = [draw_image(rng) for _ in range(3)]
    whole = encode(frames[0], rng.choice(["GIF", "WEBP", "PNG", "TIFF"]), save_all=True, append_images=frames[1:])
    return whole[: rng.randrange(len(whole) // 2, len(whole) + 1)]


def make_broken_metadata(rng: random.Random) -> bytes:
    junk = rng.randbytes(rng.randrange(1, 400))
    exif = rng.choice([b"Exif\0\0" + junk, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + junk, b"Exif\0\0MM\0*\xff\xff\xff\xff"])
    return encode(draw_image(rng), rng.choice(["JPEG", "PNG", "WEBP"]), exif=exif, icc_profile=junk)


def make_no_image(rng: random.Random) -> bytes:
    return rng.choice([b"<html>not found</html>", b"%PDF-1.7\n", b"\x7fELF" + bytes(60), b"", b"\xff\xd8"])


HOSTILE = {
    "truncated": make_truncated,
    "flipped": make_flipped,
    "spliced": make_spliced,
    "no image": make_no_image,
    "bomb": make_bomb,
    "odd_shape": make_odd_shape,
    "odd_mode": make_odd_mode,
    "animated": make_animated,
    "broken_metadata": make_broken_metadata,
}


if __name__ == "__main__":
    main()
