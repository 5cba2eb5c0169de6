"""Objects like some examples, in clusters that mix two kinds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastcomus.clusters.alike import find_alike


def make_kinds(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of three kinds, 20, 12 and 20 of them; the second kind has no cluster: 9 are in the first, 3 in the last."""
    rng = np.random.default_rng(seed)
    kinds = np.repeat([0, 1, 2], [20, 12, 20])
    rows = (np.eye(3, 16)[kinds] + 0.08 * rng.standard_normal((52, 16))).astype(np.float32)
    labels = np.where(kinds == 2, 1, 0)
    labels[29:32] = 1
    order = rng.permutation(52)
    return rows[order], labels[order], kinds[order]


@given(st.integers(0, 10**6))
def test_the_rest_of_a_kind_is_found_and_nothing_else(seed: int) -> None:
    rows, labels, kinds = make_kinds(seed)
    examples = np.flatnonzero((kinds == 1) & (labels == 0))[:3]
    rest = np.setdiff1d(np.flatnonzero(kinds == 1), examples)
    found = find_alike(rows, labels, examples)
    assert sorted(found.tolist()) == rest.tolist()
    assert find_alike(rows * 7, labels, examples[::-1]).tolist() == found.tolist()  # neither lengths nor order count
    labels[rest[0]] = -1
    assert rest[0] not in find_alike(rows, labels, examples)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 4))
def test_the_rule_is_that_of_the_nearest_mean(seed: int, size: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = rng.standard_normal((30, 4)).astype(np.float32), rng.integers(-1, k, 30)
    examples = rng.choice(30, size, replace=False)
    found = find_alike(rows, labels, examples)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def mean(of: np.ndarray) -> np.ndarray:
        total = unit[of].sum(axis=0)
        return total / np.linalg.norm(total)

    others = np.setdiff1d(np.flatnonzero(labels >= 0), examples)
    own = [np.setdiff1d(np.flatnonzero(labels == labels[row]), examples) for row in others]
    gains = np.array([unit[row] @ (mean(examples) - mean(mates)) for row, mates in zip(others, own, strict=True)])
    sure = np.abs(gains) > 1e-5
    assert set(others[(gains > 0) & sure]) <= set(found.tolist()) <= set(others[(gains > 0) | ~sure])
    by_row = dict(zip(others.tolist(), gains, strict=True))
    assert (np.diff([by_row[row] for row in found.tolist()]) < 1e-5).all()
