"""Shapes and alignment of the segmenter, and where its weights come from."""

from __future__ import annotations

import pytest
import timm
import torch

from fastcomus.errors import InputError
from fastcomus.networks.fixed_padding import align_side
from fastcomus.segmentation.segmenter import build_segmenter, enlarge_logits


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_logits_have_the_promised_shapes(mobilenet: str, output_stride: int) -> None:
    segmenter = build_segmenter("mobilenetv3_small_050", mobilenet, 6, output_stride).eval()
    height, width = 2 * output_stride + 1, 4 * output_stride + 1
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    with torch.inference_mode():
        coarse = segmenter(images)
        logits = enlarge_logits(coarse, images.shape)
    assert coarse.shape == (2, 7, 3, 5) and logits.shape == (2, 7, height, width) and logits.dtype == torch.float32
    # With sides of n s + 1, logit (i, j) belongs to pixel (i s, j s).
    assert torch.allclose(logits[:, :, ::output_stride, ::output_stride], coarse, atol=1e-5)


@pytest.mark.parametrize("output_stride", [1, 8, 16, 32])
def test_aligned_side_is_the_nearest_one(output_stride: int) -> None:
    for side in range(1, 300):
        aligned = align_side(side, output_stride)
        assert (aligned - 1) % output_stride == 0 and aligned >= 2 * output_stride + 1
        assert abs(aligned - side) <= output_stride / 2 or aligned == 2 * output_stride + 1


def test_backbone_carries_the_files_weights_and_the_head_does_not(mobilenet: str) -> None:
    own = timm.create_model("mobilenetv3_small_050", pretrained_cfg_overlay={"file": mobilenet}, pretrained=True)
    torch.manual_seed(1)
    first = build_segmenter("mobilenetv3_small_050", mobilenet, 3, 16)
    torch.manual_seed(2)
    second = build_segmenter("mobilenetv3_small_050", mobilenet, 3, 16)
    assert torch.equal(first.backbone.conv_stem.weight, own.conv_stem.weight)
    for name, tensor in first.backbone.state_dict().items():
        assert torch.equal(tensor, second.backbone.state_dict()[name])
    assert not torch.equal(first.head[0].convs[0][0].weight, second.head[0].convs[0][0].weight)
    torch.manual_seed(1)
    again = build_segmenter("mobilenetv3_small_050", mobilenet, 3, 16).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.state_dict().items())
    random = build_segmenter("mobilenetv3_small_050", "", 3, 16, pretrained=False)
    assert not torch.equal(random.backbone.conv_stem.weight, own.conv_stem.weight)
    random.load_state_dict(first.state_dict())


def test_pixels_are_normalised_by_the_backbones_statistics(mobilenet: str) -> None:
    segmenter = build_segmenter("mobilenetv3_small_050", mobilenet, 3, 16).eval()
    statistics = segmenter.backbone.pretrained_cfg
    images = torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)
    mean, std = (torch.tensor(statistics[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        expected = segmenter.head(segmenter.backbone((images.float() / 255 - mean) / std)[-1])
        assert torch.allclose(segmenter(images), expected, atol=1e-4 * float(expected.abs().max()))
    assert not any(name in segmenter.state_dict() for name in ("mean", "std"))


def test_unknown_and_unfit_backbones_are_refused(mobilenet: str) -> None:
    with pytest.raises(InputError, match=r"did you mean .*dino_resnet50"):
        build_segmenter("dino_resnet", "", 3, 8)
    with pytest.raises(InputError, match="weights"):
        build_segmenter("resnet18", mobilenet, 3, 8)
