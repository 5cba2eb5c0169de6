"""Threads compute alone, and leave the number of all others as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from fastcomus.backends.machine import count_cores
from fastcomus.backends.threads import start_threads


def test_threads_compute_alone_whatever_torch_was_told_and_others_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(50, 900, generator=generator), torch.randn(900, 70, generator=generator)
    before, made = torch.get_num_threads(), []

    def multiply(_: int) -> tuple[int, torch.Tensor]:
        return torch.get_num_threads(), left @ right

    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            with start_threads(2) as threads:
                made += threads.map(multiply, range(4))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert {count for count, _ in made} == {1}
    assert all(torch.equal(product, made[0][1]) for _, product in made)  # of several threads, MKL's sums differ


def count_blas_threads() -> set[int]:
    """Of every BLAS but those that OpenMP runs, which have a number for each thread."""
    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    return {one["num_threads"] for one in found if one.get("threading_layer") != "openmp"}


def test_numpy_takes_one_thread_while_any_others_work_and_as_many_as_before_afterwards() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(3, user_api="blas"):
        before = count_blas_threads()
        one, other = start_threads(2), start_threads(2)
        one.__enter__()
        other.__enter__()
        assert count_blas_threads() == {1}
        one.__exit__(None, None, None)  # the first to begin ends first
        assert count_blas_threads() == {1}
        other.__exit__(None, None, None)
        assert count_blas_threads() == before != {1}


def test_threads_of_several_threads_leave_numpy_as_it_was() -> None:
    """Also where the one that began first lives on: threadpoolctl lets one thread alone set OpenBLAS's number."""
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(3, user_api="blas"):
        before, order, may_end = count_blas_threads(), [], [Event(), Event()]
        begun = [Event(), Event()]

        def work(number: int) -> None:
            with start_threads(2):
                order.append(count_blas_threads())
                begun[number].set()
                may_end[number].wait(20)

        with ThreadPoolExecutor(2) as pool:
            works = [pool.submit(work, number) for number in (0, 1)]
            for one in begun:
                assert one.wait(20)
            for number in (0, 1):
                may_end[number].set()
                works[number].result()
            after = count_blas_threads()
        assert order == [{1}, {1}] and after == before != {1}


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("2,4", 2), ("", None), ("many", None), ("0", 1)])
def test_cores_are_counted_as_openmp_is_told(given: str, expected: int | None) -> None:
    program = "from fastcomus.backends.machine import count_cores as c; import sys; print(c(), 'torch' in sys.modules)"
    environment = {**os.environ, "OMP_NUM_THREADS": given}
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert told.stdout.split() == [str(expected or here), "False"]


def test_cores_are_as_many_as_torch_was_given() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        assert count_cores() == 5
    finally:
        torch.set_num_threads(before)
