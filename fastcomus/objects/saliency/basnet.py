"""BASNet, the paper's saliency network (step 1), with the tensor names and shapes of the published checkpoints.

X. Qin et al., "BASNet: Boundary-Aware Salient Object Detection", CVPR 2019: an encoder that begins like ResNet-34, a
bridge, a decoder with a map at every scale, and a small encoder-decoder that refines the finest map.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock

_REFINED_WIDTH = 64


class BASNet(nn.Module):
    """A network that turns images into saliency maps."""

    def __init__(self) -> None:
        super().__init__()
        self.inconv = nn.Conv2d(3, 64, 3, padding=1)
        self.inbn = nn.BatchNorm2d(64)
        self.encoder1 = _build_residual_stage(64, 64, 3, stride=1)
        self.encoder2 = _build_residual_stage(64, 128, 4, stride=2)
        self.encoder3 = _build_residual_stage(128, 256, 6, stride=2)
        self.encoder4 = _build_residual_stage(256, 512, 3, stride=2)
        for stage in ("resb5", "resb6"):
            for place in (1, 2, 3):
                setattr(self, f"{stage}_{place}", BasicBlock(512, 512))
        self._add_triple("bg", 512, 512, 512, dilations=(2, 2, 2))
        self._add_triple("6d", 1024, 512, 512, dilations=(1, 2, 2))
        self._add_triple("5d", 1024, 512, 512)
        self._add_triple("4d", 1024, 512, 256)
        self._add_triple("3d", 512, 256, 128)
        self._add_triple("2d", 256, 128, 64)
        self._add_triple("1d", 128, 64, 64)
        for side, width in (("b", 512), ("6", 512), ("5", 512), ("4", 256), ("3", 128), ("2", 64), ("1", 64)):
            setattr(self, f"outconv{side}", nn.Conv2d(width, 1, 3, padding=1))
        self.refunet = _Refinement()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the maps of images (N, 3, H, W), normalised by ImageNet's statistics; H and W are multiples of 32.

        Returns:
            Eight (N, 1, H, W) in [0, 1]: the refined one, the decoder's from the finest on, and the bridge's.
        """
        return tuple(torch.sigmoid(logits) for logits in self.compute_logits(images))

    def compute_logits(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the eight maps of `forward` before the sigmoid."""
        scale1 = self.encoder1(functional.relu(self.inbn(self.inconv(images))))
        scale2 = self.encoder2(scale1)
        scale3 = self.encoder3(scale2)
        scale4 = self.encoder4(scale3)
        scale5 = self._apply_three_blocks("resb5", _halve(scale4))
        scale6 = self._apply_three_blocks("resb6", _halve(scale5))

        bridge = self._apply_triple("bg", scale6)
        decoded6 = self._apply_triple("6d", torch.cat((bridge, scale6), 1))
        decoded5 = self._apply_triple("5d", torch.cat((_enlarge_by_factor(decoded6, 2), scale5), 1))
        decoded4 = self._apply_triple("4d", torch.cat((_enlarge_by_factor(decoded5, 2), scale4), 1))
        decoded3 = self._apply_triple("3d", torch.cat((_enlarge_by_factor(decoded4, 2), scale3), 1))
        decoded2 = self._apply_triple("2d", torch.cat((_enlarge_by_factor(decoded3, 2), scale2), 1))
        decoded1 = self._apply_triple("1d", torch.cat((_enlarge_by_factor(decoded2, 2), scale1), 1))

        finest = self._compute_map("1", decoded1)
        coarser = (
            _enlarge_by_factor(self._compute_map("2", decoded2), 2),
            _enlarge_by_factor(self._compute_map("3", decoded3), 4),
            _enlarge_by_factor(self._compute_map("4", decoded4), 8),
            _enlarge_by_factor(self._compute_map("5", decoded5), 16),
            _enlarge_by_factor(self._compute_map("6", decoded6), 32),
            _enlarge_by_factor(self._compute_map("b", bridge), 32),
        )
        return self.refunet(finest), finest, *coarser

    def _add_triple(
        self, name: str, channels: int, middle: int, out: int, dilations: tuple[int, int, int] = (1, 1, 1)
    ) -> None:
        widths = ((channels, middle), (middle, middle), (middle, out))
        for place, (before, after), dilation in zip("1m2", widths, dilations, strict=True):
            setattr(self, f"conv{name}_{place}", nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation))
            setattr(self, f"bn{name}_{place}", nn.BatchNorm2d(after))

    def _apply_three_blocks(self, name: str, features: torch.Tensor) -> torch.Tensor:
        for place in (1, 2, 3):
            features = self.get_submodule(f"{name}_{place}")(features)
        return features

    def _apply_triple(self, name: str, features: torch.Tensor) -> torch.Tensor:
        for place in "1m2":
            features = self.get_submodule(f"conv{name}_{place}")(features)
            features = functional.relu(self.get_submodule(f"bn{name}_{place}")(features))
        return features

    def _compute_map(self, side: str, features: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.get_submodule(f"outconv{side}")(features)
        return logits


class _Refinement(nn.Module):
    """Adds a correction to a map of logits (N, 1, H, W), computed by an encoder-decoder of four scales."""

    def __init__(self) -> None:
        super().__init__()
        width = _REFINED_WIDTH
        self.conv0 = nn.Conv2d(1, width, 3, padding=1)
        for place in (1, 2, 3, 4, 5):
            setattr(self, f"conv{place}", nn.Conv2d(width, width, 3, padding=1))
            setattr(self, f"bn{place}", nn.BatchNorm2d(width))
        for place in (4, 3, 2, 1):
            setattr(self, f"conv_d{place}", nn.Conv2d(2 * width, width, 3, padding=1))
            setattr(self, f"bn_d{place}", nn.BatchNorm2d(width))
        self.conv_d0 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Refine logits."""
        features = self.conv0(logits)
        scales = []
        for place in (1, 2, 3, 4):
            features = self._apply_layer(str(place), features)
            scales.append(features)
            features = _halve(features)
        features = self._apply_layer("5", features)
        for place in (4, 3, 2, 1):
            features = self._apply_layer(
                f"_d{place}", torch.cat((_enlarge_by_factor(features, 2), scales[place - 1]), 1)
            )
        refined: torch.Tensor = logits + self.conv_d0(features)
        return refined

    def _apply_layer(self, name: str, features: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(features)))


def _build_residual_stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    first = BasicBlock(before, after, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(after, after) for _ in range(blocks - 1)))


def _halve(features: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(features, 2, 2, ceil_mode=True)


def _enlarge_by_factor(features: torch.Tensor, factor: int) -> torch.Tensor:
    return functional.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
