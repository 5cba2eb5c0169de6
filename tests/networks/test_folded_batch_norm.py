"""Networks without their batch normalisations compute what they did with them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

from fastcomus.networks.encoders import load_encoder
from fastcomus.networks.fixed_padding import with_fixed_padding
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.objects.saliency.network_map import SaliencyNetwork
from fastcomus.segmentation.segmenter import build_segmenter

FLOATS, BYTES = torch.float32, torch.uint8
NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.dtype, int]] = {
    "efficientnet-lite0": (lambda: timm.create_model("tf_efficientnet_lite0", num_classes=0), FLOATS, 0),
    "resnet50, maps": (lambda: timm.create_model("resnet50", features_only=True, output_stride=8), FLOATS, 0),
    "mobilenetv3": (lambda: timm.create_model("mobilenetv3_small_050", num_classes=0), FLOATS, 0),
    # Its first normalisations of each block come before the convolutions, behind sums and pooled maps.
    "densenet121": (lambda: timm.create_model("densenet121", num_classes=0), FLOATS, 62),
    "deeplab": (lambda: build_segmenter("efficientnet-lite0", "", 3, 16, pretrained=False), BYTES, 0),
    "pyramid": (lambda: SaliencyNetwork("efficientnet-lite0", 65, 2), BYTES, 0),
    "basnet": (lambda: SaliencyNetwork("basnet", 64), BYTES, 0),
}


def with_drawn_statistics(network: nn.Module) -> nn.Module:
    """In eval mode, with normalisations that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.7, 1.3),
                (module.bias.data, -0.2, 0.2),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return network.eval()


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def outputs(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        output = network(images)
    return [output] if isinstance(output, torch.Tensor) else list(output)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_computes_the_same(name: str) -> None:
    make, pixels, left = NETWORKS[name]
    torch.manual_seed(0)
    network = with_drawn_statistics(make())
    before = copy.deepcopy(network.state_dict())
    folded = with_folded_batch_norms(network, pixels)
    assert batch_norms(folded) == left < batch_norms(network)
    images = torch.rand(2, 3, 97, 129) * 255  # not the size that it was folded with
    images = images.to(torch.uint8) if pixels == BYTES else images / 128 - 1
    if name == "basnet":
        images = images[:1, :, :64, :96]
    for ours, theirs in zip(outputs(folded, images), outputs(network, images), strict=True):
        assert theirs.std() > 0
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NETWORKS)
def test_rounding_to_tf32_does_not_prevent_folding(name: str) -> None:
    """The comparison happens on the host."""
    make, pixels, left = NETWORKS[name]
    network = with_drawn_statistics(make()).to("cuda")
    folded = with_folded_batch_norms(network, pixels)
    assert batch_norms(folded) == left and next(folded.parameters()).is_cuda


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_encoder_is_folded_in_float32_alone(precision: str) -> None:
    encoder = load_encoder("efficientnet-lite0", "", 64, precision, torch.device("cpu"))
    assert (batch_norms(encoder.network) == 0) == (precision == "float32")


def test_a_network_without_batch_norms_is_the_same_one() -> None:
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    assert with_folded_batch_norms(network, FLOATS, 224) is network


class Twice(nn.Module):
    """A convolution that two normalisations follow, or whose output is looked at besides."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.convolution, self.one, self.other = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.first(images)
        made = self.convolution(features)
        if self.way == "two norms":
            return self.one(made) - 2 * self.other(made)
        if self.way == "convolution twice":
            return self.one(made) - 2 * self.other(self.convolution(features + 1))
        if self.way == "norm twice":
            return self.one(made) - self.other(features) + self.one(features)
        return self.one(made) + made + self.other(features)


@pytest.mark.parametrize("way", ["two norms", "convolution twice", "norm twice", "a sum besides"])
def test_what_cannot_be_folded_stays(way: str) -> None:
    torch.manual_seed(0)
    network = with_drawn_statistics(Twice(way))
    folded = with_folded_batch_norms(network, FLOATS)
    images = torch.randn(2, 3, 40, 30)
    assert (outputs(folded, images)[0] - outputs(network, images)[0]).abs().max() < 1e-5
    assert (folded is network) == (way == "a sum besides")  # the others keep the two of the second convolution


@pytest.mark.parametrize("output_stride", [8, 16])
def test_fixed_padding_changes_nothing_for_aligned_sides(output_stride: int) -> None:
    options = {"features_only": True, "output_stride": output_stride}
    network = timm.create_model("tf_efficientnet_lite0", **options).eval()
    fixed = with_fixed_padding(copy.deepcopy(network))
    images = torch.randn(2, 3, 4 * 32 + 1, 6 * 32 + 1)
    for ours, theirs in zip(outputs(fixed, images), outputs(network, images), strict=True):
        assert torch.equal(ours, theirs)
    assert fixed.state_dict().keys() == network.state_dict().keys()
