"""Threads compute alone, and leave the number of all others as it was."""

from __future__ import annotations

import torch

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
