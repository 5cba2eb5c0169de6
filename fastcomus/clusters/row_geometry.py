"""Centres of clusters, distances to them, and rows in different directions: by torch, the same code on any device.

Results are where the rows are: rows in NumPy go to the device, a part at a time, and results come back (`placed.py`).
Sums of many rows take one order on every device, so that runs agree to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from fastcomus.backends.placed import InKind, Rows, put_rows, to_kind_of
from fastcomus.store.embeddings import normalise_rows

_PIVOT_ROWS = 50_000  # among which the pivots are sought
_LENGTHS = 0.02  # power to which lengths of rows count in that search
_LEAST_STRENGTH = 1e-5  # of a direction, of the strongest one's
_ROWS_AT_ONCE = 65_536
CPU = torch.device("cpu")


def compute_means(rows: InKind, labels: Rows, sizes: np.ndarray, device: torch.device = CPU) -> InKind:
    """Compute the mean of the rows of each cluster, in float64.

    Args:
        rows: (N, C) float32.
        labels: (N,) integers in [0, k).
        sizes: (k,) integers, of the clusters.
        device: Where it is computed.

    Returns:
        (k, C) float32; zeros for a cluster without rows.
    """
    base = put_rows(rows, device)
    members = put_rows(labels, device).argsort(stable=True).split(sizes.tolist())
    means = torch.zeros((len(sizes), rows.shape[1]), dtype=torch.float64, device=device)
    for mean, own in zip(means, members, strict=True):  # a cluster at a time: adding by label would take any order
        for part in own.split(_ROWS_AT_ONCE):
            mean += base[part].double().sum(0)
        mean /= max(1, len(own))
    return to_kind_of(rows, means.float())


def compute_cosine_distances(rows: InKind, centres: Rows, labels: Rows, device: torch.device = CPU) -> InKind:
    """Compute 1 - cosine between every row and the centre of its cluster, in float64.

    Args:
        rows: (N, C) float32.
        centres: (k, C) float32.
        labels: (N,) integers in [0, k).
        device: Where it is computed.

    Returns:
        (N,) float32 in [0, 2]; 1 where row or centre is zero.
    """
    wide_centres = put_rows(centres, device).double()
    lengths = wide_centres.norm(dim=1, keepdim=True)
    units = torch.where(lengths > 0, wide_centres / lengths, 0)
    distances = torch.empty(len(rows), device=_find_home(rows))
    for part, some in _iterate_parts(rows, device):
        wide = some.double()
        own = units[put_rows(labels[part], device).long()]
        lengths = wide.norm(dim=1)
        cosine = torch.where(lengths > 0, (wide * own).sum(1) / lengths, 0)
        distances[part] = (1 - cosine.clamp(-1, 1)).float()
    return to_kind_of(rows, distances)


def count_labels(labels: Rows, k: int) -> np.ndarray:
    """Count the rows of each cluster, (k,) int64; `labels`: (N,) integers in [0, k)."""
    return torch.bincount(put_rows(labels, _find_home(labels)), minlength=k).cpu().numpy()


def number_in_order(labels: InKind, order: np.ndarray) -> InKind:
    """Number clusters anew: (N,) labels become int32; `order`: (k,), the old number of each new one."""
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return to_kind_of(labels, put_rows(rank, _find_home(labels))[put_rows(labels, _find_home(labels)).long()])


def normalise_in_kind(rows: Rows) -> Rows:
    """Scale rows (N, C) to length 1 as float32; rows of zeros stay."""
    if isinstance(rows, np.ndarray):
        return normalise_rows(rows)
    lengths = rows.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, rows / lengths, 0).float()


def select_core(labels: InKind, distances: Rows, sizes: np.ndarray, filter: float) -> InKind:
    """Mark all rows of each cluster but the floor(filter * size) farthest from its centre.

    Args:
        labels: (N,) integers in [0, k).
        distances: (N,) float32, to the centres.
        sizes: (k,) integers, of the clusters.
        filter: Share of each cluster that is not core, in [0, 1).

    Returns:
        (N,) bool; of equal distances the first row is kept.
    """
    its_labels, its_distances = (put_rows(one, _find_home(labels)) for one in (labels, distances))
    order = its_distances.argsort(stable=True)
    order = order[its_labels[order].argsort(stable=True)]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    ends = starts + sizes - np.floor(filter * sizes + 1e-9).astype(np.int64)
    is_core = torch.empty(len(order), dtype=torch.bool, device=order.device)
    position = torch.arange(len(order), device=order.device)
    is_core[order] = position < torch.from_numpy(ends).to(order.device)[its_labels[order].long()]
    return to_kind_of(labels, is_core)


def find_pivots(rows: Rows, k: int, seed: int, device: torch.device = CPU) -> np.ndarray:
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
    among, some = np.arange(len(rows)), rows
    if len(rows) > _PIVOT_ROWS:
        among = np.sort(np.random.default_rng(seed).choice(len(rows), _PIVOT_ROWS, replace=False))
        some = rows[among] if isinstance(rows, np.ndarray) else rows[put_rows(among, rows.device)]
    wide = put_rows(some, device).double()
    wide = wide * wide.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) ** (_LENGTHS - 1)
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


def assign_by_pivots(rows: InKind, pivots: Rows, device: torch.device = CPU) -> InKind:
    """Label each row with the pivot that it is most parallel to, once the pivots are made orthogonal.

    Args:
        rows: (N, C) float32.
        pivots: (k, C) float32, rows of unit length.
        device: Where it is computed.

    Returns:
        (N,) int32 in [0, k).
    """
    left, _, right = torch.linalg.svd(put_rows(pivots, CPU).double().T, full_matrices=False)
    turned, labels = (
        (left @ right).float().to(device),
        torch.empty(len(rows), dtype=torch.int32, device=_find_home(rows)),
    )
    for part, some in _iterate_parts(rows, device):
        labels[part] = (some @ turned).abs_().argmax(dim=1).int()
    return to_kind_of(rows, labels)


def _iterate_parts(rows: Rows, device: torch.device) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield consecutive rows on the device."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        yield part, put_rows(rows[part], device)


def _find_home(rows: Rows) -> torch.device:
    return CPU if isinstance(rows, np.ndarray) else rows.device
