"""TokenCut's eigenproblem for a batch at once, against SciPy's `eigh` image by image, on planted and random features.

    python bench/token_cut.py --images 32 --side 32 --rounds 5

Inputs: planted objects with noise; smooth random fields; smooth random fields with as much noise. Two measurements:
"eigenvectors", W given, and "bipartitions", from the features on. The other side is what the original program runs:
`scipy.linalg.eigh(D - W, D, subset_by_index=[1, 2])` per image. Bipartitions are compared first, on the same W, up to
which side is called the object; the runs that are timed come after, both sides in turn, so that a slow moment of the
machine hits both. Medians over the rounds and the span from the fastest to the slowest; writes the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from fastcomus.objects.saliency.affinity import Affinity, TwoValuedAffinity
from fastcomus.objects.saliency.normalized_cut import run_token_cut
from fastcomus.objects.saliency.second_eigenvectors import compute_second_eigenvectors

TAU, WEAK = 0.2, 1e-5
CHANNELS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=32, help="patches along height and width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="of the fastcomus side: cpu or cuda")
    parser.add_argument("--json", type=Path, default=Path("bench/results/token_cut.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads)  # SciPy's side as well
    random = np.random.default_rng(arguments.seed)
    numbers = []
    for name, make in INPUTS.items():
        features = torch.from_numpy(make(random, arguments.images, arguments.side).astype(np.float32))
        numbers += measure(name, features, arguments.rounds, arguments.device)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console(width=150).print(build_table(numbers, arguments))


def measure(name: str, features: torch.Tensor, rounds: int, device: str) -> list[dict[str, Any]]:
    given = features.to(device)
    affinity, similar = compute_affinities(features), compute_similarities(given)
    ours = partition_patches(solve_in_parts(similar).cpu().numpy())
    full = run_token_cut(given, TAU).bipartitions.flatten(1).cpu().numpy()
    reference = partition_patches(solve_with_scipy(affinity.numpy()))
    same = {
        "eigenvectors": int(sum(is_same_cut(a, b) for a, b in zip(ours, reference, strict=True))),
        "bipartitions": int(sum(is_same_cut(a, b) for a, b in zip(full, reference, strict=True))),
    }
    runs: dict[tuple[str, str], Callable[[], object]] = {
        ("eigenvectors", "fastcomus"): lambda: solve_in_parts(similar),
        ("eigenvectors", "scipy"): lambda: solve_with_scipy(affinity.numpy()),
        ("bipartitions", "fastcomus"): lambda: run_token_cut(given, TAU),
        ("bipartitions", "scipy"): lambda: partition_patches(solve_with_scipy(compute_affinities(features).numpy())),
    }
    times: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(rounds):  # both sides have run above, which warmed them up
        for key, run in runs.items():
            times[key].append(time_run(run, device))
    return [
        {
            "input": name,
            "part": part,
            "side": side,
            "images": len(features),
            "same_bipartitions": same[part],
            "cpu_s": [cpu for cpu, _ in spent],
            "wall_s": [wall for _, wall in spent],
        }
        for (part, side), spent in times.items()
    ]


def solve_in_parts(similar: torch.Tensor) -> torch.Tensor:
    """As many images at once as `run_token_cut` takes: on a CPU those that fit its cache."""
    if similar.device.type == "cpu":
        return torch.cat([compute_second_eigenvectors(TwoValuedAffinity(part)) for part in similar.split(4)])
    return compute_second_eigenvectors(Affinity(similar.double().clamp_(min=WEAK)))


def compute_similarities(features: torch.Tensor) -> torch.Tensor:
    """Which patches of features (B, H, W, C) are similar: (B, N, N) bool."""
    rows = torch.nn.functional.normalize(features.flatten(1, 2), dim=2)
    return torch.bmm(rows, rows.mT) > TAU


def compute_affinities(features: torch.Tensor) -> torch.Tensor:
    """W: (B, N, N) float64."""
    return compute_similarities(features).double().clamp_(min=WEAK)


def solve_with_scipy(affinity: np.ndarray) -> np.ndarray:
    found = []
    for weights in affinity:
        degrees = np.diag(weights.sum(axis=1))
        found.append(eigh(degrees - weights, degrees, subset_by_index=[1, 2])[1][:, 0])
    return np.stack(found)


def partition_patches(vectors: np.ndarray) -> np.ndarray:
    return vectors > vectors.mean(axis=1, keepdims=True)


def is_same_cut(one: np.ndarray, other: np.ndarray) -> bool:
    return bool((one == other).all() or (one != other).all())


def time_run(run: Callable[[], object], device: str) -> tuple[float, float]:
    """CPU-seconds and wall-clock seconds."""
    if device != "cpu":
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall


def make_planted_discs(random: np.random.Generator, images: int, side: int) -> np.ndarray:
    """One to three discs of their own direction each, on a background of another, and noise."""
    y, x = np.mgrid[:side, :side]
    features = np.empty((images, side, side, CHANNELS))
    for image in features:
        directions = random.normal(size=(4, CHANNELS))
        image[:] = directions[0]
        for direction in directions[1 : 2 + random.integers(3)]:
            centre, radius = random.uniform(0.15, 0.85, 2) * side, random.uniform(0.1, 0.25) * side
            image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = direction
        image += 0.7 * random.normal(size=image.shape)
    return features


def make_random_fields(random: np.random.Generator, images: int, side: int) -> np.ndarray:
    """Gaussian random fields, correlated over an eighth of the side, of unit variance."""
    smooth = gaussian_filter(random.normal(size=(images, side, side, CHANNELS)), (0, side / 8, side / 8, 0))
    return np.asarray(smooth / smooth.std())


def make_noisy_fields(random: np.random.Generator, images: int, side: int) -> np.ndarray:
    smooth = make_random_fields(random, images, side)
    return smooth + random.normal(size=smooth.shape)


INPUTS = {
    "planted objects": make_planted_discs,
    "smooth fields": make_random_fields,
    "fields and noise": make_noisy_fields,
}


def build_table(numbers: list[dict[str, Any]], arguments: argparse.Namespace) -> Table:
    made = Table(
        title=f"{arguments.images} images of {arguments.side} x {arguments.side} patches, {arguments.device}, "
        f"{arguments.threads} thread(s); medians of {arguments.rounds} rounds (fastest to slowest)"
    )
    for column in ("input", "part", "side", "same cuts", "CPU s", "wall s", "ratio of wall"):
        made.add_column(column, justify="left" if column in ("input", "part", "side") else "right")
    for ours, theirs in zip(numbers[::2], numbers[1::2], strict=True):
        for row in (ours, theirs):
            ratio = np.median(row["wall_s"]) / np.median(ours["wall_s"])
            same = f"{row['same_bipartitions']} of {row['images']}" if row is ours else "-"
            spans = [
                f"{np.median(row[kind]):.3f} ({min(row[kind]):.3f} to {max(row[kind]):.3f})"
                for kind in ("cpu_s", "wall_s")
            ]
            made.add_row(row["input"], row["part"], row["side"], same, *spans, f"{ratio:.1f} x")
    return made


if __name__ == "__main__":
    main()
