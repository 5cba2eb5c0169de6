"""What torch does slowly in bf16 on a CPU, done faster: gradients of depthwise convolutions, and ReLU6.

oneDNN has no fast kernel for the former: 2 % of the operations of an EfficientNet were two thirds of its training time.
The gradient of the input is a convolution itself, for which there is one; that of the filters is five times as fast in
float32. ReLU6, a third of the time of a prediction, converts every number to float32 and back; on their bits, as
integers of 16 bits in the same order, it is ten times as fast. bench/bf16_on_cpu.py measures both.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def use_bf16_shortcuts(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """A context for passes of networks that are not compiled; it does nothing but on a CPU in "bf16".

    Convolutions of one filter per channel, without bias, get a faster backward pass, whose gradients are nearer to
    exact; ReLU6 without gradients is done on bits. Results of the forward pass are the same bits.
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
    """Of ReLU6 and the like: numbers that are not negative are in the order of their bits, all others below them."""
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
    """Of functional.conv2d: what `_DepthwiseConvolution` takes, or None where it is not for it."""
    if groups == 1 or not groups == weight.shape[0] == input.shape[1] or bias is not None or isinstance(padding, str):
        return None
    return input, weight, _pair(stride), _pair(padding), _pair(dilation)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class _DepthwiseConvolution(torch.autograd.Function):
    """`stride`, `padding`, `dilation`: pairs."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
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
    @torch.amp.custom_bwd(device_type="cpu")
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
