"""Compiled functions against the same functions uncompiled, and what goes through them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastcomus.encoders import Encoder
from fastcomus.fixed_batches import FixedBatches, filled_up

HOST = torch.device("cpu")


def small_encoder(device: torch.device) -> Encoder:
    """A convolutional network of two layers on crops of 16 px."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    statistics = (torch.full((1, 3, 1, 1), value, device=device) for value in (120.0, 60.0))
    return Encoder(nn.Sequential(*layers).to(device).eval(), 16, *statistics, "float32")


def crops(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def same_through_what_is_compiled(device: torch.device) -> None:
    encoder = small_encoder(device)
    fixed = FixedBatches(encoder, 4, device)
    first, second = crops(4, 0), crops(4, 1)

    def forbidden(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("not compiled")

    fixed.function = forbidden
    found = [fixed(first), fixed(second)]  # the second must not overwrite the first
    for rows, batch in zip(found, (first, second), strict=True):
        assert rows.dtype == torch.float32 and torch.allclose(rows, encoder(batch), atol=1e-5)
    with pytest.raises(AssertionError, match="not compiled"):
        fixed(first[:3])
    fixed.function = encoder
    assert (fixed(first[:3]) == encoder(first[:3])).all()


def test_a_compiled_encoder_gives_the_same_embeddings() -> None:
    same_through_what_is_compiled(HOST)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_gives_the_same_embeddings() -> None:
    same_through_what_is_compiled(torch.device("cuda:0"))


def test_batches_are_filled_up_with_their_last_item() -> None:
    batch = crops(3, 0)
    filled = filled_up(batch, 5)
    assert (filled[:3] == batch).all() and (filled[3:] == batch[2]).all() and len(filled) == 5
    assert filled_up(batch, 3) is batch
