"""Nearest neighbours among very many rows on a GPU, by cuVS (CAGRA) or by FAISS (inverted lists), to a measured recall.

Both need the exact neighbours of a sample; what they find for it is compared with these.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from fastcomus.backends.centred_rows import BLOCK_ROWS, CentredRows
from fastcomus.backends.nearest_neighbors import measure_recall
from fastcomus.backends.torch_neighbors import ProductSearch, put_own_first

_SAMPLE = 300  # rows whose neighbours are also found exactly, to measure recall
_ROWS_PER_LIST = 1_000
_TRAINING_ROWS_PER_LIST = 64
_MOST_FOUND = 2_048  # neighbours, or lists looked at, that FAISS takes on a GPU
_CAGRA_WIDTHS = 64, 128, 256, 512  # candidates that a search by CAGRA keeps, at least as many as neighbours


def search_by_cagra(
    rows: CentredRows, count: int, recall: float, seed: int, device: torch.device
) -> tuple[np.ndarray, float]:
    """Find the nearest rows of every row by cuVS, widening its search until it reaches a recall.

    Args:
        rows: N rows.
        count: Rows to find, the row itself included.
        recall: Share of the true neighbours to reach, in (0, 1].
        seed: Of the sample.
        device: A CUDA device.

    Returns:
        Indices (N, count) int32, -1 for none, and their recall on the sample.

    Raises:
        ArithmeticError: The widest search does not reach the recall.
    """
    from cuvs.neighbors import cagra

    if count > _CAGRA_WIDTHS[-1]:
        raise ArithmeticError(f"it finds up to {_CAGRA_WIDTHS[-1]} neighbours, not {count}")
    sample, farthest = _find_sample_exactly(rows, count, seed, device)

    def search(queries: torch.Tensor, width: int) -> np.ndarray:
        looking = cagra.SearchParams(itopk_size=width)
        neighbors = cagra.search(looking, index, queries, count)[1]
        found = neighbors.copy_to_host().astype(np.int64)
        return np.where(found < len(rows), found, -1)  # places that it left empty hold the largest number

    with make_current(device):
        on_device = torch.empty((len(rows), rows.dimension), device=device)
        for start, block in rows.iterate_blocks():
            on_device[start : start + len(block)] = torch.from_numpy(block)
        index = cagra.build(cagra.IndexParams(metric="sqeuclidean"), on_device)
        queries, reached = on_device[torch.from_numpy(sample).to(device)], 0.0
        for width in (one for one in _CAGRA_WIDTHS if one >= count):
            reached = measure_search_recall(rows, sample, search(queries, width), farthest)
            if reached >= recall:
                parts = [search(part, width).astype(np.int32) for part in on_device.split(BLOCK_ROWS)]
                return np.concatenate(parts), reached
    raise ArithmeticError(f"it found {reached:.3f} of the true neighbours, not {recall}")


def search_inverted_lists(
    rows: CentredRows, count: int, recall: float, seed: int, device: torch.device
) -> tuple[np.ndarray, float]:
    """Find the same by FAISS, searching more and more of its lists; see `search_by_cagra`."""
    import faiss

    if count > _MOST_FOUND:
        raise ArithmeticError(f"it finds up to {_MOST_FOUND} neighbours on a GPU, not {count}")
    rng = np.random.default_rng(seed)
    lists = max(1, len(rows) // _ROWS_PER_LIST)
    resources = faiss.StandardGpuResources()  # 1.5 GB, let go of at the end
    empty = faiss.index_factory(rows.dimension, f"IVF{lists},Flat")
    index = faiss.index_cpu_to_gpu(resources, device.index or 0, empty)
    drawn = rng.choice(len(rows), min(len(rows), lists * _TRAINING_ROWS_PER_LIST), replace=False)
    index.train(rows[np.sort(drawn)])
    for _, block in rows.iterate_blocks():
        index.add(block)
    sample, farthest = _find_sample_exactly(rows, count, seed, device)
    looked_at, most, reached, looking = 1, min(lists, _MOST_FOUND), 0.0, faiss.SearchParametersIVF()
    while reached < recall and looked_at < most:
        looked_at = min(2 * looked_at, most)
        looking.nprobe = looked_at
        found = index.search(rows[sample], count, params=looking)[1]
        reached = measure_search_recall(rows, sample, found, farthest)
    if reached < recall:
        raise ArithmeticError(f"it found {reached:.3f} of the true neighbours in {looked_at} lists, not {recall}")
    parts = [index.search(block, count, params=looking)[1].astype(np.int32) for _, block in rows.iterate_blocks()]
    return np.concatenate(parts), reached


def measure_search_recall(rows: CentredRows, sample: np.ndarray, found: np.ndarray, farthest: np.ndarray) -> float:
    """Measure the share of the true neighbours of some rows in what a search found for them.

    Args:
        rows: N rows.
        sample: (S,), the rows.
        found: (S, n) integers, which may hold the row itself, or -1 for none.
        farthest: (S,), squared distance to the true last neighbour.

    Returns:
        The share, in [0, 1].
    """
    others = put_own_first(torch.from_numpy(found), torch.from_numpy(sample)).numpy()[:, 1:]
    others = np.where(others == sample[:, None], -1, others)  # the row itself in a place left empty is no neighbour
    return measure_recall(rows, sample, others, farthest, others.shape[1])


def make_current(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device current in this thread, where cuML's and cuVS's work is done."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _find_sample_exactly(
    rows: CentredRows, count: int, seed: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows, ascending, and find the squared distance of each to its true last neighbour."""
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(_SAMPLE, len(rows)), replace=False))
    search = ProductSearch(rows, count, (device,))
    return sample, search.find(torch.from_numpy(sample), torch.float32)[0][:, -1].numpy()
