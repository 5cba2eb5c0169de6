"""Saliency networks without weights, whose tensor names and shapes a checkpoint is compared with."""

from __future__ import annotations

from typing import Any


def create_saliency_network(kind: str) -> Any:
    """Create "basnet", else FOUND's decoder, on the meta device, where tensors have shapes but no values."""
    import torch

    with torch.device("meta"):
        if kind == "basnet":
            from fastcomus.objects.saliency.basnet import BASNet

            return BASNet()
        return torch.nn.ModuleDict({"decoder": torch.nn.Conv2d(384, 1, 1)})
