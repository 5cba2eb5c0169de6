"""The largest eigenpairs of a graph on a device, component by component; only small ones are solved on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fastcomus.backends.block_krylov import count_basis_columns, draw_first_block, find_largest_eigenpairs
from fastcomus.backends.device_graph import DeviceGraph, DeviceOperator, find_components_on, put_rows
from fastcomus.backends.graph_eigenvectors import SMALL_GRAPH_ROWS, solve_connected_graph, sort_eigenpairs
from fastcomus.backends.placed import fetch, fetch_graph

Solver = Callable[[DeviceGraph, torch.Tensor, int, int], tuple[np.ndarray, torch.Tensor]]
_BYTES_PER_LINK = 40  # columns, values twice, and the rows of the entries


@torch.inference_mode()
def find_eigenvectors_on(
    affinity: DeviceGraph, count: int, seed: int, solve: Solver
) -> tuple[np.ndarray, torch.Tensor]:
    """Find the largest eigenpairs of D^-1/2 W D^-1/2; see `Backend.find_eigenvectors`.

    Args:
        affinity: W, (N, N).
        count: Number of eigenpairs.
        seed: Seed of the random start.
        solve: Solves one component, as `solve_component`.

    Returns:
        Eigenvalues (count,) float64, descending, and unit eigenvectors (N, count) on the device.
    """
    scale = affinity.sum_rows().rsqrt()
    # Small problems in float64; in large ones the solver works in float32 anyway.
    kind = torch.float64 if affinity.shape[0] <= SMALL_GRAPH_ROWS else torch.float32
    values = affinity.values * (scale[affinity.columns] * scale[affinity.list_rows()])
    matrix = replace(affinity, values=values.to(kind))
    part = find_components_on(matrix)
    sizes = fetch(torch.bincount(part))
    if len(sizes) == 1:
        found, vectors = solve(matrix, scale, count, seed)
        return found.astype(np.float64), _fix_signs(vectors)
    # Part by part, the largest first: each has an eigenvalue 1, and Lanczos overlooks copies of an eigenvalue.
    # As many parts as vectors are enough: each has that eigenvalue.
    members, pairs = [], []
    for one in np.argsort(-sizes, kind="stable")[:count].tolist():
        members.append((part == one).nonzero()[:, 0])
        pairs.append(solve(matrix.take_rows(members[-1]), scale[members[-1]], count, seed))
    every = np.concatenate([part_values for part_values, _ in pairs])
    places = [(owner, column) for owner, (own, _) in enumerate(pairs) for column in range(len(own))]
    order = np.argsort(-every, kind="stable")[:count]
    vectors = torch.zeros((len(part), len(order)), dtype=kind, device=part.device)
    for target, (owner, column) in enumerate(places[place] for place in order):
        vectors[members[owner], target] = pairs[owner][1][:, column].to(kind)
    return every[order].astype(np.float64), _fix_signs(vectors)


def solve_component(
    matrix: DeviceGraph, scale: torch.Tensor, count: int, seed: int
) -> tuple[np.ndarray, torch.Tensor, float]:
    """Find the largest eigenpairs of a connected graph, by the block solver; those of a small one on the host.

    Args:
        matrix: D^-1/2 W D^-1/2, (n, n).
        scale: D^-1/2, (n,).
        count: Number of eigenpairs, of which there are no more than n.
        seed: Seed of the random start.

    Returns:
        Eigenvalues, descending from 1, the eigenvectors in the columns, on the device, and the largest residual.
    """
    if matrix.shape[0] <= max(SMALL_GRAPH_ROWS, 4 * count):
        values, found = solve_connected_graph(fetch_graph(matrix), count, seed)
        return values, torch.from_numpy(np.ascontiguousarray(found)).to(scale.device), 0.0
    first = put_rows(draw_first_block(matrix.shape[0], seed), scale.device)
    pairs = find_largest_eigenpairs(DeviceOperator(matrix), first, count)
    values, order = sort_eigenpairs(pairs.values)
    return values, pairs.vectors[:, put_rows(order, scale.device)], pairs.residual


def count_bytes(nodes: int, links: int, vectors: int) -> int:
    """Count the bytes of a device that the search for so many eigenvectors takes, the graph included."""
    return links * _BYTES_PER_LINK + 4 * nodes * (count_basis_columns(vectors) + 2 * vectors + 96)


def _fix_signs(vectors: torch.Tensor) -> torch.Tensor:
    """Turn eigenvectors so that the entry of largest absolute value is positive, which makes runs agree."""
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return torch.where(largest < 0, -vectors, vectors)
