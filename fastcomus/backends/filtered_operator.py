"""A polynomial of a symmetric matrix, under which its largest eigenvalues stand far above all others.

A basis of p(A) needs fewer vectors than one of A, since each stands for as many products as p has degrees, and it is
keeping vectors orthogonal that takes the time. (Zhou, Saad, Tiago and Chelikowsky, "Self-consistent-field calculations
using Chebyshev-filtered subspace iteration", Journal of Computational Physics 219, 2006.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

_HIGHEST_DEGREE = 9
_MOST_ENLARGED = 1e3  # of the seven digits of float32, four are left to the least eigenvalue that is wanted
_LEAST_ENLARGED = 30.0  # with less, what is wanted hardly stands above the rest


class Operator(Protocol):
    """A symmetric matrix (n, n), and how the work on its vectors is divided."""

    def __matmul__(self, block: Any) -> Any:
        """Multiply a block of vectors (n, b)."""

    def map_slices(self, function: Callable[[slice], Any], length: int) -> list[Any]:
        """Apply a function to slices that together are [0, length); results in order."""


class PlainOperator:
    """The matrix itself, in the place of a polynomial of it."""

    floor = -np.inf

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def __matmul__(self, block: Any) -> Any:
        return self._operator @ block

    def map_slices(self, function: Callable[[slice], Any], length: int) -> list[Any]:
        """See `Operator`."""
        return self._operator.map_slices(function, length)

    def find_eigenvalues(self, values: np.ndarray) -> np.ndarray:
        """Find the eigenvalues of A from those of p(A), (c,) float64, which are above `floor`."""
        return values

    def limit_residuals(self, residuals: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Bound |A v - x v| by |p(A) v - p(x) v| and p(x), all (c,) float64."""
        return residuals


class FilteredOperator(PlainOperator):
    """p(A) of a symmetric matrix A with eigenvalues in [-1, 1], where p(x) = T_d((x - c) / h) / T_d((1 - c) / h).

    T_d is Chebyshev's polynomial of degree d, c and h are the middle and half the length of an interval. There |p| is
    at most `floor`; above, p grows up to p(1) = 1 as fast as a polynomial of its degree can. d is odd, so that p is
    below zero before the interval. It is as high as float32 bears.
    """

    def __init__(self, operator: Operator, lower: float, upper: float) -> None:
        """Take the interval from `lower`, at least -1, to `upper`, or to less where p could not grow enough."""
        super().__init__(operator)
        grown = float(np.cosh(np.arccosh(_LEAST_ENLARGED) / _HIGHEST_DEGREE))  # T_d(x) = cosh(d arccosh x) from 1 on
        upper = min(upper, (2 - lower * (1 - grown)) / (1 + grown))
        self._middle, self._half, self._lower = (lower + upper) / 2, (upper - lower) / 2, lower
        growth = float(np.arccosh((1 - self._middle) / self._half))
        odd = range(3, _HIGHEST_DEGREE + 1, 2)
        self.degree = max((d for d in odd if np.cosh(d * growth) <= _MOST_ENLARGED), default=1)
        self.floor = float(1 / np.cosh(self.degree * growth))

    def __matmul__(self, block: Any) -> Any:
        """Multiply a block of vectors (n, b), by d products with A; T_(i+1)(x) = 2 x T_i(x) - T_(i-1)(x)."""
        before, now = None, block
        for i in range(self.degree):
            following, factor = self._operator @ now, (2 if i else 1) / self._half
            self._operator.map_slices(self._build_step(following, now, before, factor), len(block))
            before, now = now, following
        now *= self.floor
        return now

    def _build_step(self, product: Any, now: Any, before: Any, factor: float) -> Callable[[slice], None]:
        """Return what makes of A @ now, in place and for a slice of rows, factor * (A - c) @ now - before."""

        def step(part: slice) -> None:
            rows = product[part]
            rows -= self._middle * now[part]
            rows *= factor
            if before is not None:
                rows -= before[part]

        return step

    def find_eigenvalues(self, values: np.ndarray) -> np.ndarray:
        """See `PlainOperator`."""
        found: np.ndarray = self._middle + self._half * np.cosh(np.arccosh(values / self.floor) / self.degree)
        return found

    def limit_residuals(self, residuals: np.ndarray, values: np.ndarray) -> np.ndarray:
        """See `PlainOperator`.

        To every other eigenvalue y, |x - y| is at most so many times |p(x) - p(y)|: y is at least `lower` where |p(y)|
        is at most `floor`, and at least -1 where p(y) is below -`floor`; above x, p is steeper still.
        """
        limits = np.full(len(values), np.inf)
        risen = values > self.floor
        found, known = self.find_eigenvalues(values[risen]), values[risen]
        most = np.maximum((found - self._lower) / (known - self.floor), (found + 1) / (known + self.floor))
        limits[risen] = residuals[risen] * most
        return limits
