"""Products in threads are SciPy's, for any number of threads, and so for every row."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, random_array

from fastcomus.backends import sparse_operator
from fastcomus.backends.sparse_operator import SparseOperator, open_operator
from fastcomus.backends.threads import Threads


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.floats(0, 0.6),
    st.integers(1, 9),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 99),
)
def test_products_are_scipys_for_any_number_of_threads(
    n: int, density: float, parts: int, kind: type, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = csr_array(random_array((n, n), density=density, format="csr", dtype=np.float32, random_state=rng))
    block = rng.standard_normal((n, 5)).astype(kind)
    with ThreadPoolExecutor(3) as pool:
        found = SparseOperator(matrix, Threads(parts, pool)) @ block
    expected = matrix @ block
    assert found.dtype == kind and found.tobytes() == expected.tobytes()


def test_as_many_threads_multiply_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_operator, "count_cores", lambda: 4)
    with open_operator(csr_array(np.eye(9, dtype=np.float32))) as operator:
        assert len(operator._parts) == 4
        assert (operator @ np.arange(18, dtype=np.float64).reshape(9, 2))[:, 1].tolist() == list(range(1, 18, 2))
