"""Compiled functions against the same functions uncompiled, and what goes through them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import timm
import torch
from torch import nn

from fastcomus.networks.compiled_batches import FixedBatches, fill_up
from fastcomus.networks.encoders import Encoder, PatchEncoder, PatchFeatures
from fastcomus.objects.saliency.patch_methods import PatchMethod

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


@pytest.mark.slow
def test_a_compiled_encoder_gives_the_same_embeddings() -> None:
    same_through_what_is_compiled(HOST)


def test_batches_are_on_the_device_before_what_is_compiled_sees_them() -> None:
    """It could not copy them there: pinning memory cannot be compiled."""
    seen: list[str] = []
    fixed = FixedBatches(lambda batch: batch, 4, torch.device("meta"))
    fixed.compiled = lambda batch: seen.append(batch.device.type) or batch  # type: ignore[func-returns-value]
    assert fixed(crops(4, 0)).shape == (4, 3, 16, 16) and seen == ["meta"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_gives_the_same_embeddings() -> None:
    same_through_what_is_compiled(torch.device("cuda:0"))


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_features_of_patches_are_compiled_whole(name: str) -> None:
    """In one graph, as a CUDA graph must be; what torch's compiler makes of it is left out, for its time."""
    torch.manual_seed(0)
    is_transformer = "vit" in name
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True}
    network = timm.create_model(name, **(options if is_transformer else {"features_only": True, "out_indices": (-1,)}))
    statistics = (torch.full((1, 3, 1, 1), value) for value in (120.0, 60.0))
    encoder = PatchEncoder(network.eval(), 16 if is_transformer else 32, *statistics, "float32")
    method = PatchMethod(encoder, 64, lambda features: features.keys)
    traced = torch.compile(method._compute_features, backend="eager", fullgraph=True, dynamic=False)
    for seed in (0, 1):
        images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
        with torch.inference_mode():
            found = traced(images)
        features = encoder(images)
        names = [field.name for field in fields(PatchFeatures)]
        for name, tensor in zip(names, found, strict=True):
            assert torch.equal(tensor, getattr(features, name)), name


def test_batches_are_filled_up_with_their_last_item() -> None:
    batch = crops(3, 0)
    filled = fill_up(batch, 5)
    assert (filled[:3] == batch).all() and (filled[3:] == batch[2]).all() and len(filled) == 5
    assert fill_up(batch, 3) is batch
