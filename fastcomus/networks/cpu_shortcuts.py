"""Faster versions of what torch does slowly on a CPU: gradients of some convolutions, and ReLU6 in bf16.

oneDNN has no fast kernel for the gradients of filters of 5 x 5 and of dilated filters, nor for any in bf16, where they
took two thirds of an EfficientNet's training time for 2 % of its operations. The gradient of the input is itself a
convolution, for which there is a fast kernel; that of large or dilated filters is compiled here. Of the widely dilated
filters of DeepLab's head only the middle meets small feature maps, and oneDNN multiplies the rest by zeros in the
gradients: they took four times as long as the middle alone. ReLU6 in bf16 converts every number to float32 and back and
took a third of the time of a prediction; clamping the bits as 16-bit integers is ten times as fast.
bench/cpu_shortcuts.py measures all of it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fastcomus.backends.compiled import has_numba

_LEAST_SIDE = 5  # px, of filters that are slow without dilation


def use_cpu_shortcuts(device: torch.device) -> AbstractContextManager[Any]:
    """Make a context that speeds up passes of networks on a CPU; elsewhere it does nothing.

    Bias-free convolutions with one filter per channel, and those whose filters reach beyond their input, get a faster
    backward pass, in bf16 the former a slightly more exact one. ReLU6 in bf16 is computed on bits where no gradients
    are needed. Forward results are unchanged to the bit, but for NaN, which that ReLU6 turns into a number. Not for
    compiled networks.

    Args:
        device: Where the networks run.

    Returns:
        The context manager.
    """
    return _Shortcuts() if device.type == "cpu" else nullcontext()


class _Shortcuts(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.conv2d and torch.is_grad_enabled():
            given = _Convolution(*args, **kwargs)
            found = _match_depthwise(given)
            if found is not None:
                return _DepthwiseConvolution.apply(*found)
            args, kwargs = tuple(_cut_filters(given)), {}
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


class _Convolution(NamedTuple):
    """The arguments of functional.conv2d."""

    input: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    stride: int | tuple[int, int] = 1
    padding: int | str | tuple[int, int] = 0
    dilation: int | tuple[int, int] = 1
    groups: int = 1


def _match_depthwise(
    given: _Convolution,
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Turn a convolution into the arguments of `_DepthwiseConvolution`; None where it does not apply."""
    input, weight, bias, stride, padding, dilation, groups = given
    if groups == 1 or not groups == weight.shape[0] == input.shape[1] or bias is not None or isinstance(padding, str):
        return None
    return input, weight, _pair(stride), _pair(padding), _pair(dilation)


def _cut_filters(given: _Convolution) -> _Convolution:
    """Return a convolution without those elements of its filters that only ever meet the border."""
    input, weight, _, stride, padding, dilation, _ = given
    if isinstance(padding, str) or max(_pair(dilation)) == 1:
        return given
    border, apart = list(_pair(padding)), _pair(dilation)
    for axis in (0, 1):
        reach = weight.shape[2 + axis] // 2  # elements on each side of the middle
        is_centred = _pair(stride)[axis] == 1 and weight.shape[2 + axis] % 2 and border[axis] == reach * apart[axis]
        if is_centred and apart[axis] >= input.shape[2 + axis]:
            weight, border[axis] = weight.narrow(2 + axis, reach, 1), 0
    return given._replace(weight=weight, padding=(border[0], border[1]))


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
        needs_input, needs_weight = ctx.needs_input_grad[:2]
        sides = weight.shape[2:]
        border = [apart * (side - 1) - one for apart, side, one in zip(dilation, sides, padding, strict=True)]
        is_convolution = stride == (1, 1) and min(border) >= 0  # of the gradient with the filters turned round
        is_slow = max(sides) >= _LEAST_SIDE or max(dilation) > 1
        of_input = of_weight = None
        if is_convolution and needs_input:
            of_input = functional.conv2d(gradient, weight.flip(2, 3), None, 1, border, dilation, len(weight))
            needs_input = False
        if is_slow and needs_weight and has_numba():
            from fastcomus.networks.filter_gradients import compute_filter_gradient  # only now: numba takes a second

            of_weight = compute_filter_gradient(gradient.float(), input.float(), sides, stride, padding, dilation)
            needs_weight = False
        if needs_input or needs_weight:
            rest = torch.ops.aten.convolution_backward(
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
                [needs_input, needs_weight, False],
            )
            of_input, of_weight = rest[0] if needs_input else of_input, rest[1] if needs_weight else of_weight
        return of_input, of_weight, None, None, None
