"""Centres of clusters, distances to them, and rows in different directions: by torch, the same code on any device.

Sums of many rows take one order on every device, so that runs agree to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

_PIVOT_ROWS = 50_000  # among which the pivots are sought
_LENGTHS = 0.02  # power to which lengths of rows count in that search
_LEAST_STRENGTH = 1e-5  # of a direction, of the strongest one's
_ROWS_AT_ONCE = 65_536
CPU = torch.device("cpu")


def compute_means(rows: np.ndarray, labels: np.ndarray, sizes: np.ndarray, device: torch.device = CPU) -> np.ndarray:
    """Compute the mean of the rows of each cluster, in float64.

    Args:
        rows: (N, C) float32.
        labels: (N,) integers in [0, k).
        sizes: (k,) integers, of the clusters.
        device: Where it is computed.

    Returns:
        (k, C) float32; zeros for a cluster without rows.
    """
    base = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
    members = torch.from_numpy(np.argsort(labels, kind="stable")).to(device).split(sizes.tolist())
    means = torch.zeros((len(sizes), rows.shape[1]), dtype=torch.float64, device=device)
    for mean, own in zip(means, members, strict=True):  # a cluster at a time: adding by label would take any order
        for part in own.split(_ROWS_AT_ONCE):
            mean += base[part].double().sum(0)
        mean /= max(1, len(own))
    return means.float().cpu().numpy()


def compute_cosine_distances(
    rows: np.ndarray, centres: np.ndarray, labels: np.ndarray, device: torch.device = CPU
) -> np.ndarray:
    """Compute 1 - cosine between every row and the centre of its cluster, in float64.

    Args:
        rows: (N, C) float32.
        centres: (k, C) float32.
        labels: (N,) integers in [0, k).
        device: Where it is computed.

    Returns:
        (N,) float32 in [0, 2]; 1 where row or centre is zero.
    """
    wide_centres = torch.from_numpy(centres).to(device).double()
    lengths = wide_centres.norm(dim=1, keepdim=True)
    units = torch.where(lengths > 0, wide_centres / lengths, 0)
    distances = np.empty(len(rows), np.float32)
    for part, some in _iterate_parts(rows, device):
        wide = some.double()
        own = units[torch.from_numpy(labels[part]).to(device).long()]
        lengths = wide.norm(dim=1)
        cosine = torch.where(lengths > 0, (wide * own).sum(1) / lengths, 0)
        distances[part] = (1 - cosine.clamp(-1, 1)).float().cpu().numpy()
    return distances


def find_pivots(rows: np.ndarray, k: int, seed: int, device: torch.device = CPU) -> np.ndarray:
    """Find rows in k directions that differ most: the pivots of a QR factorisation of rows^T, from a sample of rows.

    (Damle, Minden and Ying, "Simple, direct and efficient multi-way spectral clustering", 2019.) Rows count as almost
    equally long: of equal lengths, rounding would choose the first pivot, and the order of the rows would matter; of
    their own lengths, long rows would be chosen for that alone.

    Args:
        rows: (N, C) float32.
        k: Number of directions.
        seed: Of the sample.
        device: Where it is computed, in float64.

    Returns:
        Their indices, (k,); fewer where the rows have fewer directions.
    """
    among = np.arange(len(rows))
    if len(rows) > _PIVOT_ROWS:
        among = np.sort(np.random.default_rng(seed).choice(len(rows), _PIVOT_ROWS, replace=False))
    wide = torch.from_numpy(rows[among]).to(device).double()
    wide *= wide.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) ** (_LENGTHS - 1)
    rest = wide.square().sum(1)  # what the directions so far leave of each row's squared length
    directions = torch.zeros((0, wide.shape[1]), dtype=torch.float64, device=device)
    chosen: list[int] = []
    least = 0.0
    for _ in range(min(k, *wide.shape)):
        place = int(rest.argmax())
        if float(rest[place]) <= least:
            break
        direction = wide[place]
        for _ in range(2):
            direction = direction - (directions @ direction) @ directions
        length = direction.norm()
        least = least or float((_LEAST_STRENGTH * length).square())
        if float(length.square()) <= least:
            break
        directions = torch.cat([directions, (direction / length)[None]])
        rest -= (wide @ directions[-1]).square()
        rest[place] = 0
        chosen.append(place)
    pivots: np.ndarray = among[chosen]
    return pivots


def assign_by_pivots(rows: np.ndarray, pivots: np.ndarray, device: torch.device = CPU) -> np.ndarray:
    """Label each row with the pivot that it is most parallel to, once the pivots are made orthogonal.

    Args:
        rows: (N, C) float32.
        pivots: (k, C) float32, rows of unit length.
        device: Where it is computed.

    Returns:
        (N,) int32 in [0, k).
    """
    left, _, right = torch.linalg.svd(torch.from_numpy(pivots).double().T, full_matrices=False)
    turned, labels = (left @ right).float().to(device), np.empty(len(rows), np.int32)
    for part, some in _iterate_parts(rows, device):
        labels[part] = (some @ turned).abs_().argmax(dim=1).int().cpu().numpy()
    return labels


def _iterate_parts(rows: np.ndarray, device: torch.device) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield consecutive rows on the device."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield part, torch.from_numpy(np.ascontiguousarray(rows[part])).to(device)
