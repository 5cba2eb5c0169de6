"""Kills and hostile files: does a run always end as if nothing had happened, and within its memory?

    python -m bench.faults --kills 17 --files 10000

First the test of kills in tests/run/test_crash_safety.py with so many kills of every stage, at moments spread over all
of it: each is started again until it is through, and its run folder compared with that of a run that nobody disturbed,
byte for byte. Then hostile files, those of the tests, go through `embed`, and as many good ones for their peak memory.
Linux only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from bench import harness
from fastcomus.images.folder import find_images
from fastcomus.images.found import UnreadableImage
from fastcomus.images.reading import read_image
from fastcomus.run.contents import read_skipped
from fastcomus.run.run import Run

KILLS = "tests/run/test_crash_safety.py::test_killed_stages_go_on_to_the_same_bytes"
MAX_PIXELS = 2_000_000
SMALL = {"crop_size": 32, "min_area": 50, "shard_images": 256, "embed_batch": 32}


def main() -> None:
    parser = harness.make_parser(__doc__, "faults", seed=0)
    parser.add_argument("--kills", type=int, default=17, help="of every stage, besides those of what goes on")
    parser.add_argument("--stages", nargs="*", default=[], help="which are killed; by default all")
    parser.add_argument("--files", type=int, default=10_000, help="hostile ones, and as many good ones")
    parser.add_argument("--makers", type=Path, default=Path("tests/hostile_files.py"), help="what writes the files")
    arguments = parser.parse_args()
    os.environ["FASTCOMUS_OFFLINE"] = "1"
    stored = harness.read_json(arguments.json)
    parts = {
        "kills": lambda scratch: run_kills(arguments.kills, arguments.stages, scratch / "report.xml"),
        "files": lambda scratch: run_hostile_files(arguments.files, arguments.seed, arguments.makers, scratch),
    }
    for part, work in parts.items():
        if getattr(arguments, part):
            with tempfile.TemporaryDirectory() as scratch:
                stored[part] = {**harness.describe_run("cpu", "pillow"), **work(Path(scratch))}
            harness.print_progress(stored[part])
            harness.write_json(arguments.json, stored)


def run_kills(count: int, stages: list[str], report: Path) -> harness.Row:
    """What the test counted, by stage and in all, and which files differed in the end."""
    tests = [f"{KILLS}[{stage}]" for stage in stages] or [KILLS]
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    subprocess.run(line, env={**os.environ, "FASTCOMUS_TEST_KILLS": str(count)}, check=False)
    told = {}
    for case in ElementTree.parse(report).iter("testcase"):
        stage = str(case.get("name")).partition("[")[2].rstrip("]")
        told[stage] = {str(one.get("name")): one.get("value") or "" for one in case.iter("property")}
        if not told[stage]:
            raise SystemExit(f"the stage {stage} did not come through; pytest says why")
    differences = [f"{stage}: {one['differences']}" for stage, one in told.items() if one.pop("differences", "")]
    done = {stage: {name: int(value) for name, value in one.items()} for stage, one in told.items()}
    total = {name: sum(one[name] for one in done.values()) for name in ("trials", "kills", "differing")}
    return {**total, "stages": done, "differences": differences}


def run_hostile_files(count: int, seed: int, makers: Path, scratch: Path) -> harness.Row:
    """What became of `count` hostile files, the slowest of them, and peak memory against as many good ones."""
    module = harness.load_file(makers)
    made = module.write_hostile(scratch / "hostile", count, seed)
    module.write_good(scratch / "good", count, seed)
    before = list_files(scratch)
    kinds = ("hostile", "good")
    found = {kind: harness.run_apart(embed_files, scratch / kind, scratch / f"run-{kind}") for kind in kinds}
    slowest = max(time_reading(scratch / "hostile" / name) for name in find_images(scratch / "hostile").names)
    return {
        **found,
        "memory_ratio": round(found["hostile"]["peak_bytes"] / found["good"]["peak_bytes"], 3),
        "made": made,
        "touched_outside": list_files(scratch) != before,
        "slowest": {"seconds": round(slowest[0], 3), "file": slowest[1]},
    }


def embed_files(images: Path, run: Path) -> harness.Row:
    made = Run(run, preset="offline", settings={"embed": SMALL}, device="cpu", workers=2)
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


def list_files(scratch: Path) -> list[tuple[str, int]]:
    """Every file beside the run folders, with its time of change."""
    entries = (path for name in ("hostile", "good") for path in (scratch / name).rglob("*"))
    return sorted((ascii(path), path.lstat().st_mtime_ns) for path in entries)


if __name__ == "__main__":
    main()
