"""Faster versions of what torch does slowly in bf16 on a CPU: gradients of depthwise convolutions, and ReLU6.

oneDNN has no fast kernel for these gradients, which took two thirds of an EfficientNet's training time for 2 % of its
operations. The gradient of the input is itself a convolution, for which there is a fast kernel; that of the filters is
five times as fast in float32. ReLU6 converts every number to float32 and back and took a third of the time of a
prediction; clamping the bits as 16-bit integers is ten times as fast. bench/bf16_on_cpu.py measures both.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def use_bf16_shortcuts(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Make a context that speeds up passes of networks in bf16 on a CPU; elsewhere it does nothing.

    Bias-free convolutions with one filter per channel get a faster and slightly more exact backward pass. ReLU6 is
    computed on bits where no gradients are needed. Forward results are unchanged to the bit. Not for compiled networks.

    Args:
        device: Where the networks run.
        precision: "float32" or "bf16".

    Returns:
        The context manager.
    """
    return _Shortcuts() if device.type == "cpu" and precision == "bf16" else nullcontext()


class _Shortcuts(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.conv2d and torch.is_grad_enabled():
            found = _match_depthwise(*args, **kwargs)
            if found is not None:
                return _DepthwiseConvolution.apply(*found)
        if function is functional.hardtanh and not torch.is_grad_enabled():
            return _apply_hardtanh(*args, **kwargs)
        return function(*args, **kwargs)


def _apply_hardtanh(
    input: torch.Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> torch.Tensor:
    """Compute ReLU6 and the like: as integers, the bits of numbers >= 0 keep their order, and all others lie below."""
    if input.dtype != torch.bfloat16 or min_val != 0 or max_val < 0:
        return functional.hardtanh(input, min_val, max_val, inplace)
    most = int(torch.tensor(max_val, dtype=torch.bfloat16).view(torch.int16))
    bits = input.view(torch.int16)
    return (bits.clamp_(0, most) if inplace else bits.clamp(0, most)).view(torch.bfloat16)


def _match_depthwise(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | str | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Turn the arguments of functional.conv2d into those of `_DepthwiseConvolution`; None where it does not apply."""
    if groups == 1 or not groups == weight.shape[0] == input.shape[1] or bias is not None or isinstance(padding, str):
        return None
    return input, weight, _pair(stride), _pair(padding), _pair(dilation)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _DepthwiseConvolution(torch.autograd.Function):
    """`stride`, `padding`, `dilation`: pairs."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        input: torch.Tensor,
        weight: torch.Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        ctx.how = stride, padding, dilation
        return functional.conv2d(input, weight, None, stride, padding, dilation, len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None, None]:
        (input, weight), (stride, padding, dilation) = ctx.saved_tensors, ctx.how
        is_convolution = stride == (1, 1)  # of the gradient with the filters turned round
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient.float(),
            input.float(),
            weight.float(),
            None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            len(weight),
            [ctx.needs_input_grad[0] and not is_convolution, ctx.needs_input_grad[1], False],
        )
        if is_convolution and ctx.needs_input_grad[0]:
            sides = weight.shape[2:]
            border = [apart * (side - 1) - one for apart, side, one in zip(dilation, sides, padding, strict=True)]
            of_input = functional.conv2d(gradient, weight.flip(2, 3), None, 1, border, dilation, len(weight))
        return of_input, of_weight, None, None, None
