"""Kills and hostile files: does a run always end as if nothing had happened, and within its memory?

    python bench/faults.py --kills 200 --files 10000

First every stage is killed at moments spread over all of it, started again until it is through, and the run folder
compared with that of a run that nobody disturbed, byte for byte. Then hostile files (tests/hostile_files.py) go through
`embed`, and as many good ones for their peak memory. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import fork_server
from crash_stages import STAGES, Workshop, killed_until_done
from hostile_files import write_good, write_hostile

MAX_PIXELS = 2_000_000
# Shares of the kills: long stages have more to lose.
SHARES = {"embed": 5, "cluster": 6, "train": 5, "predict": 6, "assign": 3, "evaluate": 4, "train-saliency": 5}
SHARES |= {"export-coco": 2, "export-voc": 3, "export-yolo": 2, "export-labelme": 2, "export-onnx": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="at least so many")
    parser.add_argument("--stages", nargs="*", default=list(SHARES), choices=list(SHARES), metavar="STAGE")
    parser.add_argument("--files", type=int, default=10_000, help="hostile ones, and as many good ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=Path("bench/results/faults.json"))
    parser.add_argument("--embed", type=Path, nargs=2, help=argparse.SUPPRESS)  # in a process of its own: peak memory
    arguments = parser.parse_args()
    if arguments.embed:
        _embed(*arguments.embed)
        return
    stored = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for part in ("kills", "files"):
        if not getattr(arguments, part):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            if part == "kills":
                earlier = stored.get("kills", {}) if set(arguments.stages) != set(SHARES) else {}
                stored[part] = run_kills(arguments.kills, arguments.stages, earlier, arguments.seed, Path(scratch))
            else:
                stored[part] = run_hostile_files(arguments.files, arguments.seed, Path(scratch))
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(stored, indent=2) + "\n")


def run_kills(wanted: int, stages: list[str], earlier: dict[str, Any], seed: int, scratch: Path) -> dict[str, Any]:
    """Kills by stage, and how many folders differed in the end. `earlier`: numbers of other stages, which are kept."""
    fork_server.prepare()
    workshop, rng = Workshop(scratch / "workshop"), random.Random(seed)
    done = {stage: numbers for stage, numbers in earlier.get("stages", {}).items() if stage not in stages}
    differing = [one for one in earlier.get("differences", []) if one.partition(" ")[0] in done]
    for stage in stages:
        undisturbed, mine = workshop.undisturbed(stage), {"trials": 0, "kills": 0, "differing": 0}
        done[stage] = mine
        trials = -(-wanted * SHARES[stage] // sum(SHARES[one] for one in stages))
        mine["moments"] = undisturbed.moments
        for trial in range(trials):
            moment = 1 + int((trial + rng.random()) / trials * undisturbed.moments)
            *killed, end = killed_until_done(undisturbed, moment, seed + trial)
            mine["trials"] += 1
            mine["kills"] += len(killed)
            if end != "same":
                mine["differing"] += 1
                differing.append(f"{stage} at {moment}: {end}")
        print(stage, mine, flush=True)
    total = {name: sum(one[name] for one in done.values()) for name in ("trials", "kills", "differing")}
    print("all stages", total, *differing, sep="\n", flush=True)
    return {**total, "stages": done, "of": sorted(STAGES), "differences": differing}


def run_hostile_files(count: int, seed: int, scratch: Path) -> dict[str, Any]:
    """What became of `count` hostile files, the slowest of them, and peak memory against as many good ones."""
    made = write_hostile(scratch / "hostile", count, seed)
    write_good(scratch / "good", count, seed)
    before = _list_outside(scratch)
    found = {name: _embed_apart(scratch / name, scratch / f"run-{name}") for name in ("hostile", "good")}
    found["memory_ratio"] = round(found["hostile"]["peak_bytes"] / found["good"]["peak_bytes"], 3)
    touched = _list_outside(scratch) != before
    found |= {"made": made, "touched_outside": touched, "slowest": _find_slowest(scratch / "hostile")}
    print(json.dumps(found, indent=2), flush=True)
    return found


def _embed_apart(images: Path, run: Path) -> dict[str, Any]:
    line = [sys.executable, __file__, "--embed", str(images), str(run)]
    started = time.monotonic()
    ended = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "FASTCOMUS_OFFLINE": "1"})
    if ended.returncode:
        return {"crashed": ended.returncode, "said": ended.stderr[-2000:], "peak_bytes": 0}
    told = json.loads(ended.stdout.splitlines()[-1])
    shutil.rmtree(run)
    return {**told, "elapsed_s": round(time.monotonic() - started, 1)}


def _embed(images: Path, run: Path) -> None:
    """In a process of its own; the last line says what came of it."""
    from crash_stages import SMALL

    from fastcomus.run.run import Run

    settings = {**SMALL, "embed": {**SMALL["embed"], "shard_images": 256, "embed_batch": 32}}
    made = Run(run, preset="offline", settings=settings, device="cpu", workers=2)
    embedded = made.embed(images, max_pixels=MAX_PIXELS)
    reasons: dict[str, int] = {}
    for row in made._read_skipped().to_pylist():
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    # Not getrusage's, which begins with what the parent held.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    told = {"images": embedded.images, "objects": embedded.objects, "skipped": embedded.skipped, "reasons": reasons}
    print(json.dumps({**told, "peak_bytes": peak}))


def _find_slowest(images: Path) -> dict[str, Any]:
    """Every file read once more, alone: the one that took the most of the processor's time."""
    from fastcomus.images.folder import find_images
    from fastcomus.images.found import UnreadableImage
    from fastcomus.images.reading import read_image

    worst = (0.0, "")
    for name in find_images(images).names:
        started = time.process_time()
        try:
            read_image(images / name, MAX_PIXELS)
        except UnreadableImage:
            pass
        worst = max(worst, (time.process_time() - started, name))
    return {"seconds": round(worst[0], 3), "file": ascii(worst[1])}


def _list_outside(scratch: Path) -> list[tuple[str, int]]:
    """Every file beside the run folders, with its time of change."""
    entries = (path for name in ("hostile", "good") for path in (scratch / name).rglob("*"))
    return sorted((ascii(path), path.lstat().st_mtime_ns) for path in entries)


if __name__ == "__main__":
    main()
