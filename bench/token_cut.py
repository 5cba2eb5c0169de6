"""TokenCut's eigenproblem for a batch at once, against SciPy's `eigh` image by image, on planted and random features.

    python -m bench.token_cut --count 32 --side 32 --repeats 5

Inputs: planted objects with noise; smooth random fields; smooth random fields with as much noise. Two measurements:
"eigenvectors", W given, and "bipartitions", from the features on. The other side is what the original program runs:
`scipy.linalg.eigh(D - W, D, subset_by_index=[1, 2])` per image. Bipartitions are compared first, on the same W, up to
which side is called the object; the runs that are timed come after, both sides in turn, so that a slow moment of the
machine hits both. The table has medians, the JSON every turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from bench import harness
from fastcomus.objects.saliency.affinity import Affinity, TwoValuedAffinity
from fastcomus.objects.saliency.normalized_cut import run_token_cut
from fastcomus.objects.saliency.second_eigenvectors import compute_second_eigenvectors

TAU, WEAK = 0.2, 1e-5
CHANNELS = 64


def main() -> None:
    defaults = {"count": 32, "repeats": 5, "threads": 1, "seed": 0, "device": "cpu"}
    parser = harness.make_parser(__doc__, "token_cut", **defaults)
    parser.add_argument("--side", type=int, default=32, help="patches along height and width")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads)  # SciPy's side as well
    random = np.random.default_rng(arguments.seed)
    rows = []
    for name, make in INPUTS.items():
        features = torch.from_numpy(make(random, arguments.count, arguments.side).astype(np.float32))
        rows += [{"input": name, **row} for row in measure(features, arguments.repeats, arguments.device)]
    kinds = ("cpu", "wall")
    shown = [row | {f"{kind}_s": statistics.median(row[f"{kind}_s"]) for kind in kinds} for row in rows]
    title = f"{arguments.count} images of {arguments.side} x {arguments.side} patches"
    harness.finish(arguments, title, {"rows": rows}, "scipy", shown=shown)


def measure(features: torch.Tensor, repeats: int, device: str) -> list[harness.Row]:
    given = features.to(device)
    on_cpu, similar = compute_similarities(features), compute_similarities(given)
    reference = partition_patches(solve_with_scipy(on_cpu))
    parts: dict[str, dict[str, Callable[[], object]]] = {
        "eigenvectors": {"fastcomus": lambda: solve_in_parts(similar), "scipy": lambda: solve_with_scipy(on_cpu)},
        "bipartitions": {
            "fastcomus": lambda: run_token_cut(given, TAU).bipartitions,
            "scipy": lambda: partition_patches(solve_with_scipy(compute_similarities(features))),
        },
    }
    rows = []
    for part, sides in parts.items():
        times = harness.time_sides(sides, repeats, device)
        found = times["fastcomus"].result.flatten(1).cpu().numpy()
        ours = partition_patches(found) if part == "eigenvectors" else found
        equal = ours == reference
        same = int((equal.all(axis=1) | ~equal.any(axis=1)).sum())
        about = {"part": part, "images": len(features), "same_bipartitions": same}
        for side, taken in times.items():
            ratio = taken.median_s / times["fastcomus"].median_s
            rows.append({**about, "side": side, "cpu_s": taken.cpu_s, "wall_s": taken.wall_s, "ratio": ratio})
    return rows


def solve_in_parts(similar: torch.Tensor) -> torch.Tensor:
    """As many images at once as `run_token_cut` takes: on a CPU those that fit its cache."""
    if similar.device.type == "cpu":
        return torch.cat([compute_second_eigenvectors(TwoValuedAffinity(part)) for part in similar.split(4)])
    return compute_second_eigenvectors(Affinity(similar.double().clamp_(min=WEAK)))


def compute_similarities(features: torch.Tensor) -> torch.Tensor:
    """Which patches of features (B, H, W, C) are similar: (B, N, N) bool."""
    rows = torch.nn.functional.normalize(features.flatten(1, 2), dim=2)
    return torch.bmm(rows, rows.mT) > TAU


def solve_with_scipy(similar: torch.Tensor) -> np.ndarray:
    """(B, N): the second eigenvector of each image."""
    found = []
    for weights in similar.double().clamp_(min=WEAK).numpy():
        degrees = np.diag(weights.sum(axis=1))
        found.append(eigh(degrees - weights, degrees, subset_by_index=[1, 2])[1][:, 0])
    return np.stack(found)


def partition_patches(vectors: np.ndarray) -> np.ndarray:
    return vectors > vectors.mean(axis=1, keepdims=True)


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


if __name__ == "__main__":
    main()
