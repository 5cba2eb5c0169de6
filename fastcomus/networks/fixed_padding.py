"""TensorFlow's "same" padding as a constant of the network."""

from __future__ import annotations

from typing import TypeVar

from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.nn.utils import skip_init

Network = TypeVar("Network", bound=nn.Module)


def with_fixed_padding(network: Network) -> Network:
    """Replace convolutions that compute their padding from the image's size by ones with constant padding.

    For sides of n * output stride + 1 pixels TensorFlow's "same" padding is symmetric and independent of the size, at
    every layer. For such images the results are unchanged to the bit.

    Args:
        network: Changed in place.

    Returns:
        The same network.
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
    """Round a side to a multiple of the output stride plus one, of at least two strides.

    Args:
        side: In pixels.
        output_stride: Pixels per feature of the network.

    Returns:
        The nearest such side, in pixels.
    """
    return max(2, round((side - 1) / output_stride)) * output_stride + 1
