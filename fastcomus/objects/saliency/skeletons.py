"""Saliency networks without values, to compare a checkpoint with."""

from __future__ import annotations

from typing import Any


def create_saliency_network(kind: str) -> Any:
    """A saliency network whose tensors have names and shapes, but no values."""
    import torch

    with torch.device("meta"):
        if kind == "basnet":
            from fastcomus.objects.saliency.basnet import BASNet

            return BASNet()
        return torch.nn.ModuleDict({"decoder": torch.nn.Conv2d(384, 1, 1)})
