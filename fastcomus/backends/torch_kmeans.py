"""k-means by torch, on any device: k-means++ and Lloyd's iterations, as scikit-learn's."""

from __future__ import annotations

import math

import torch

_MOST_ITERATIONS = 300
_TOLERANCE = 1e-4  # of the rows' mean variance: centres that move less, squared and summed up, have arrived
_ROWS_AT_ONCE = 262_144


@torch.inference_mode()
def run_kmeans_on(
    rows: torch.Tensor, k: int, n_init: int, seed: int, start: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cluster rows by k-means; no sum depends on the order in which a device adds, so that runs agree to the bit.

    Args:
        rows: (N, C) floating point; distances are computed on their device, in float32.
        k: Number of clusters, at most N.
        n_init: Number of runs, of which the one of least inertia counts.
        seed: Seed of the initial centres.
        start: Initial centres (k, C) of a single run, instead of `n_init` random ones.

    Returns:
        Labels (N,) int32 in [0, k), and centres (k, C) float32.
    """
    mean = rows.float().mean(0)  # distances of squares lose digits to a common mean
    own = rows.float() - mean
    squared = own.square().sum(1)
    tolerance = _TOLERANCE * float(own.var(0, correction=0).mean())
    generator = torch.Generator().manual_seed(seed)
    best: tuple[float, torch.Tensor, torch.Tensor] | None = None
    for _ in range(n_init if start is None else 1):
        centres = _draw_centres(own, squared, k, generator) if start is None else start.float() - mean
        found = _iterate(own, squared, centres, tolerance)
        if best is None or found[0] < best[0]:
            best = found
    assert best is not None
    return best[1].int(), best[2] + mean


def _draw_centres(rows: torch.Tensor, squared: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """Draw k rows by k-means++ (Arthur and Vassilvitskii 2007), each the best of 2 + log k drawn by distance."""
    trials = 2 + int(math.log(k))
    drawn = torch.rand((k, trials), generator=generator, dtype=torch.float64).to(rows.device)
    first = (drawn[0, :1] * len(rows)).long()
    chosen = [first]
    nearest = _compute_distances(rows, squared, rows[first])[:, 0]
    for place in range(1, k):
        sums = (nearest.double() * (2.0**62 / len(rows) / nearest.max().clamp(min=1e-30))).long().cumsum(0)
        candidates = torch.searchsorted(sums, (drawn[place] * sums[-1]).long()).clamp(max=len(rows) - 1)
        distances = torch.minimum(_compute_distances(rows, squared, rows[candidates]), nearest[:, None])
        best = distances.sum(0, dtype=torch.float64).argmin()[None]
        nearest = distances.index_select(1, best)[:, 0]
        chosen.append(candidates[best])
    return rows[torch.cat(chosen)]


def _iterate(
    rows: torch.Tensor, squared: torch.Tensor, centres: torch.Tensor, tolerance: float
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Move centres to the means of their rows until they rest; give inertia, labels (N,) int64 and centres (k, C)."""
    before: torch.Tensor | None = None
    labels, distances = _assign_rows(rows, squared, centres)
    for _ in range(_MOST_ITERATIONS):
        moved = _compute_means(rows, labels, distances, centres)
        shift = float((moved - centres).square().sum())
        centres, before = moved, labels
        labels, distances = _assign_rows(rows, squared, centres)
        if shift <= tolerance or bool((labels == before).all()):
            break
    return float(distances.sum(dtype=torch.float64)), labels, centres


def _assign_rows(rows: torch.Tensor, squared: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest centre of every row, (N,) int64, and the squared distance to it, (N,)."""
    parts = [
        _compute_distances(part, lengths, centres).min(dim=1)
        for part, lengths in zip(rows.split(_ROWS_AT_ONCE), squared.split(_ROWS_AT_ONCE), strict=True)
    ]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def _compute_means(
    rows: torch.Tensor, labels: torch.Tensor, distances: torch.Tensor, centres: torch.Tensor
) -> torch.Tensor:
    """Compute the means of the rows of each label; an empty cluster takes one of the rows farthest from their centres.

    Sums are matrix products, since adding rows one by one would take another order on a device every time.
    """
    k = len(centres)
    counts = torch.bincount(labels, minlength=k)
    if bool((counts == 0).any()):
        empty = (counts == 0).nonzero()[:, 0]
        labels = labels.clone()
        labels[distances.topk(len(empty)).indices] = empty
        counts = torch.bincount(labels, minlength=k)
    sums = torch.zeros(centres.shape, dtype=torch.float64, device=centres.device)
    numbers = torch.arange(k, device=labels.device)[:, None]
    for part, its_labels in zip(rows.split(_ROWS_AT_ONCE // 8), labels.split(_ROWS_AT_ONCE // 8), strict=True):
        sums += (numbers == its_labels).to(part.dtype) @ part
    means = (sums / counts.clamp(min=1)[:, None]).to(centres.dtype)
    return torch.where(counts[:, None] > 0, means, centres)


def _compute_distances(rows: torch.Tensor, squared: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Compute squared distances (N, M) of rows (N, C), whose squared lengths are known, to others (M, C)."""
    return (squared[:, None] - 2 * (rows @ others.T) + others.square().sum(1)).clamp_(min=0)
