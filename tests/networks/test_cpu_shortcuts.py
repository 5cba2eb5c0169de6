"""Gradients of depthwise convolutions against torch's in float64, ReLU6 against torch's on every number of 16 bits."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn
from torch.nn import functional

from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.precision import use_precision

CPU = torch.device("cpu")


def gradients(
    convolution: nn.Module, image: torch.Tensor, weigh: torch.Tensor, fast: bool, precision: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The output, and the gradients of its weighted sum by image and filters."""
    image = image.clone().requires_grad_()
    convolution.zero_grad()
    with use_cpu_shortcuts(CPU) if fast else nullcontext(), use_precision(CPU, precision):
        output = convolution(image)
    (output.float() * weigh[..., : output.shape[2], : output.shape[3]]).sum().backward()
    assert image.grad is not None
    return output.detach(), image.grad, next(convolution.parameters()).grad


@settings(max_examples=60)
@given(
    precision=st.sampled_from(["bf16", "float32"]),
    channels=st.integers(2, 9),
    size=st.tuples(st.integers(9, 20), st.integers(9, 20)),
    side=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    has_border=st.booleans(),
    seed=st.integers(0, 100),
)
def test_gradients_are_those_of_the_convolution(
    precision: str,
    channels: int,
    size: tuple[int, int],
    side: int,
    stride: int,
    dilation: int,
    has_border: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    border = dilation * (side - 1) // 2 if has_border else 0
    convolution = nn.Conv2d(channels, channels, side, stride, border, dilation, channels, bias=False)
    image, weigh = torch.randn(3, channels, *size), torch.randn(3, channels, *size)
    output, of_image, of_filters = gradients(convolution, image, weigh, True, precision)
    assert torch.equal(output, gradients(convolution, image, weigh, False, precision)[0])
    kind, tolerance = (torch.bfloat16, 0.01) if precision == "bf16" else (torch.float32, 1e-5)
    with torch.no_grad():
        for filters in convolution.parameters():
            filters.copy_(filters.to(kind))
    expected = gradients_in_double(convolution.double(), image.to(kind), weigh.to(kind))
    for found, wanted in zip((of_image, of_filters), expected, strict=True):
        assert (found - wanted).norm() <= tolerance * wanted.norm()


def gradients_in_double(
    convolution: nn.Module, image: torch.Tensor, weigh: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    image = image.double().requires_grad_()
    convolution.zero_grad()
    output = convolution(image)
    (output * weigh[..., : output.shape[2], : output.shape[3]]).sum().backward()
    assert image.grad is not None
    return image.grad, next(convolution.parameters()).grad


@given(
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    dilation=st.integers(1, 10),
    stride=st.integers(1, 2),
    is_padded=st.booleans(),
    has_bias=st.booleans(),
)
def test_filters_that_reach_beyond_the_map_learn_the_same(
    size: tuple[int, int], sides: tuple[int, int], dilation: int, stride: int, is_padded: bool, has_bias: bool
) -> None:
    torch.manual_seed(0)
    border = tuple(dilation * (side - 1) // 2 if is_padded else dilation * (side - 1) for side in sides)
    convolution = nn.Conv2d(3, 4, sides, stride, border, dilation, bias=has_bias)
    image, weigh = torch.randn(2, 3, *size), torch.randn(2, 4, 60, 60)
    fast, plain = (gradients(convolution, image, weigh, fast, "float32") for fast in (True, False))
    for found, wanted in zip(fast, plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("kind", ["same", "plain", "biased", "grouped", "by hand"])
def test_every_convolution_still_learns(kind: str, precision: str) -> None:
    torch.manual_seed(0)
    made = {
        "same": lambda: Conv2dSame(6, 6, 3, stride=2, groups=6, bias=False),  # as timm's EfficientNets have
        "plain": lambda: nn.Conv2d(6, 6, 3, bias=False),
        "biased": lambda: nn.Conv2d(6, 6, 3, groups=6),
        "grouped": lambda: nn.Conv2d(6, 6, 3, groups=2, bias=False),
        "by hand": lambda: ByHand(),
    }[kind]()
    image, weigh = torch.randn(2, 6, 12, 12), torch.randn(2, 6, 12, 12)
    fast, plain = (gradients(made, image, weigh, fast, precision) for fast in (True, False))
    assert torch.equal(fast[0], plain[0])
    for found, wanted in zip(fast[1:], plain[1:], strict=True):
        assert (found - wanted).norm() <= 0.02 * wanted.norm()
    assert all(parameter.grad.dtype == torch.float32 for parameter in made.parameters())


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(6, 1, 3, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(image, self.filters, padding="same", groups=6)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("most", [6.0, 20.5, 0.01])
def test_relu6_of_every_number(inplace: bool, most: float) -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    every = every[~every.isnan()].reshape(2, -1)
    wanted, given = functional.hardtanh(every, 0.0, most), every.clone()
    with torch.inference_mode(), use_cpu_shortcuts(CPU):
        found = nn.Hardtanh(0.0, most, inplace)(given)
    assert torch.equal(found, wanted) and torch.equal(given, found if inplace else every)


def test_other_activations_are_torchs() -> None:
    numbers = torch.linspace(-9, 9, 100)
    for activation in (nn.ReLU6(), nn.Hardtanh(-2, 3), nn.ReLU(), nn.SiLU()):
        for values in (numbers, numbers.bfloat16()):
            with use_cpu_shortcuts(CPU), torch.no_grad():
                found = activation(values)
            assert torch.equal(found, activation(values))
