"""Batch normalisation behind a convolution, folded into it: at inference it is but another scale and bias."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TypeVar

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)

_TOLERANCE = 1e-3  # of the largest output; rounding makes a hundredth of it


def with_folded_batch_norms(network: Network, pixels: torch.dtype, side: int = 64) -> Network:
    """Copy `network` (eval mode) and fold each batch normalisation into the convolution before it.

    `pixels`: what it takes as (N, 3, H, W): uint8, or float32 as it was trained on. Which normalisation follows which
    convolution is seen as noise of `side` px passes. `network` itself comes back where it has none, or where something
    else takes what a convolution gives as well.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    noise = _make_noise(pixels, side).to(next(network.parameters()).device)
    pairs, expected = _observe_pairs(folded, noise)
    taken_by: dict[nn.Module, nn.Module] = {}
    for convolution, normalisation in pairs:
        fused = fuse_conv_bn_eval(convolution, normalisation)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        has_activation = isinstance(normalisation, BatchNormAct2d)
        taken_by[normalisation] = normalisation.get_submodule("act") if has_activation else nn.Identity()
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if child in taken_by:
                setattr(module, name, taken_by[child])
    both = zip(_run_network(folded, noise), expected, strict=True)
    is_same = all(bool((ours - theirs).abs().max() <= _TOLERANCE * theirs.abs().max()) for ours, theirs in both)
    return folded if is_same else network


def _observe_pairs(
    network: nn.Module, noise: torch.Tensor
) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[torch.Tensor]]:
    """Convolutions with the one normalisation that takes their output, both used once; and what the network gives."""
    outputs: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}  # holds the tensors, so that an id stays theirs
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    used: Counter[nn.Module] = Counter()

    def remember(convolution: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        used[convolution] += 1
        outputs[id(output)] = convolution, output

    def pair(normalisation: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(normalisation, nn.BatchNorm2d)
        used[normalisation] += 1
        if id(inputs[0]) in outputs:
            pairs.append((outputs[id(inputs[0])][0], normalisation))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(remember))
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(pair))
    expected = _run_network(network, noise)
    for hook in hooks:
        hook.remove()
    takers = Counter(convolution for convolution, _ in pairs)
    return [(one, taker) for one, taker in pairs if used[one] == takers[one] == used[taker] == 1], expected


@torch.inference_mode()
def _run_network(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    output = network(images)
    return [output] if isinstance(output, torch.Tensor) else list(output)


def _make_noise(pixels: torch.dtype, side: int) -> torch.Tensor:
    """(1, 3, side, side), the same at every call."""
    generator, shape = torch.Generator().manual_seed(0), (1, 3, side, side)
    if pixels == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
