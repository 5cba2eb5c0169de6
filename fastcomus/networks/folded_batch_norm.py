"""Folding of batch normalisations into the convolutions before them: at inference they only scale and shift."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TypeVar

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Network = TypeVar("Network", bound=nn.Module)

_TOLERANCE = 1e-3  # of the largest output; rounding makes a hundredth of it


def with_folded_batch_norms(network: Network, pixels: torch.dtype, side: int = 64) -> Network:
    """Copy a network and fold each batch normalisation into the convolution before it.

    Which normalisation follows which convolution is observed by passing noise through the network. That happens on the
    host, wherever the network is: a GPU rounds the products of convolutions to TF32, more coarsely than the comparison
    allows.

    Args:
        network: In eval mode; takes images (N, 3, H, W).
        pixels: Kind of its input: uint8, or float32 normalised as in its training.
        side: Side of the noise image, in pixels.

    Returns:
        The folded copy; `network` itself where it has no batch normalisation, or where the copy's outputs differ
        because something else uses the output of a convolution as well.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    device = next(network.parameters()).device
    folded = copy.deepcopy(network).cpu()
    noise = _make_noise(pixels, side)
    pairs, expected = _observe_pairs(folded, noise)
    taken_by: dict[nn.Module, nn.Module] = {}
    for convolution, normalisation in pairs:
        mean, variance = normalisation.running_mean, normalisation.running_var
        assert mean is not None and variance is not None
        scaling = mean, variance, normalisation.eps, normalisation.weight, normalisation.bias
        convolution.weight, convolution.bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *scaling)
        has_activation = isinstance(normalisation, BatchNormAct2d)
        taken_by[normalisation] = normalisation.get_submodule("act") if has_activation else nn.Identity()
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if child in taken_by:
                setattr(module, name, taken_by[child])
    both = zip(_run_network(folded, noise), expected, strict=True)
    is_same = all(bool((ours - theirs).abs().max() <= _TOLERANCE * theirs.abs().max()) for ours, theirs in both)
    return folded.to(device) if is_same else network


def _observe_pairs(
    network: nn.Module, noise: torch.Tensor
) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], list[torch.Tensor]]:
    """Find each convolution, used once, whose output goes to one normalisation, used once; also give the outputs."""
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
    """Make noise (1, 3, side, side), the same at every call."""
    generator, shape = torch.Generator().manual_seed(0), (1, 3, side, side)
    if pixels == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
