"""Saliency networks without weights, whose tensor names and shapes a checkpoint is compared with."""

from __future__ import annotations

from typing import Any


def create_saliency_network(kind: str) -> Any:
    """Create a saliency network on torch's meta device, where tensors have names and shapes but no values.

    Args:
        kind: "basnet"; any other is FOUND's decoder.

    Returns:
        The module.
    """
    import torch

    with torch.device("meta"):
        if kind == "basnet":
            from fastcomus.objects.saliency.basnet import BASNet

            return BASNet()
        return torch.nn.ModuleDict({"decoder": torch.nn.Conv2d(384, 1, 1)})
