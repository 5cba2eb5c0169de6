"""Gradients and running statistics are those of torch alone, to the bit, and less is kept for them."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from conftest import BACKBONE
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.precision import use_precision
from fastcomus.networks.recomputed_activations import RecomputedActivations
from fastcomus.segmentation.segmenter import build_segmenter

CPU = torch.device("cpu")


def make_network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "segmenter":
        network: nn.Module = build_segmenter(BACKBONE["backbone"], "", 3, 16, pretrained=False)
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return network
    in_place, is_changed = kind == "in place", kind == "changed after"
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(in_place) if not is_changed else Doubled(),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU6(in_place),
        Twice(),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 2, 1),
    )


class Twice(nn.Module):
    """Two convolutions of the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.one(given) * self.other(given)


class Doubled(nn.Module):
    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given.mul_(2)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["segmenter", "in place", "beside", "changed after"])
def test_gradients_and_statistics_are_torchs_and_less_is_kept(kind: str, precision: str) -> None:
    network = make_network(kind).train()
    images = torch.rand(3, 3, 65, 65)
    results, kept = [], []
    for context in (nullcontext(), RecomputedActivations()):
        trained, seen = copy.deepcopy(network), {}

        def note(tensor: torch.Tensor, seen: dict[int, torch.Tensor] = seen) -> torch.Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        shortcuts = use_precision(CPU, precision), use_cpu_shortcuts(CPU)
        with saved_tensors_hooks(note, lambda tensor: tensor), shortcuts[0], shortcuts[1], context:
            output = trained(images)
        own = {parameter.untyped_storage().data_ptr() for parameter in trained.parameters()}
        kept.append(sum(tensor.nbytes for address, tensor in seen.items() if address not in own))
        output.float().square().sum().backward()
        gradients = [parameter.grad for parameter in trained.parameters()]
        results.append([output.detach(), *gradients, *trained.buffers()])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert kept[1] < (0.9 if kind == "segmenter" else 0.8) * kept[0]  # SiLU keeps more than ReLU


def test_networks_in_eval_mode_are_left_alone() -> None:
    network, images = make_network("in place").eval(), torch.rand(2, 3, 33, 33)
    with RecomputedActivations():
        network(images).sum().backward()
        with torch.inference_mode():
            assert network(images).shape == (2, 2, 29, 29)
