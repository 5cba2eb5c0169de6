"""TensorFlow's "same" padding as a constant of the network."""

from __future__ import annotations

from typing import TypeVar

from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils import skip_init

Network = TypeVar("Network", bound=nn.Module)


def with_fixed_padding(network: Network) -> Network:
    """`network`, changed so that no convolution works out its padding from the image's size, with a padded copy of it.

    For sides of n * output stride + 1 pixels, whose halves are again such, TensorFlow's "same" padding is the same on
    both sides and for every size, so nothing changes for them, not a bit.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv2dSame):
                fixed = skip_init(
                    nn.Conv2d,
                    child.in_channels,
                    child.out_channels,
                    child.kernel_size,
                    stride=child.stride,
                    padding=tuple(d * (k - 1) // 2 for d, k in zip(child.dilation, child.kernel_size, strict=True)),
                    dilation=child.dilation,
                    groups=child.groups,
                    bias=child.bias is not None,
                )
                fixed.weight, fixed.bias = child.weight, child.bias
                setattr(module, name, fixed)
    return network


def align_side(side: float, output_stride: int) -> int:
    """The side in pixels nearest to `side` that is a multiple of the output stride plus one; at least two steps."""
    return max(2, round((side - 1) / output_stride)) * output_stride + 1
