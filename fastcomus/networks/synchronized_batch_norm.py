"""Batch normalisation with statistics over the batches of several processes."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import nn


def synchronize_batch_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """Replace batch normalisations by ones whose statistics cover the batches of all processes.

    On CUDA devices this is torch's SyncBatchNorm, which supports no other device; on a CPU it is the same in plain
    operations. Parameters and their names are unchanged.

    Args:
        network: Changed in place.
        device: Where it is trained.

    Returns:
        The network.
    """
    if device.type == "cuda":
        return cast(nn.Module, convert_sync_batchnorm(network))
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            network.add_module(name, SynchronizedBatchNorm(child))
        else:
            synchronize_batch_norms(child, device)
    return network


class SynchronizedBatchNorm(nn.Module):
    """Replaces a BatchNorm2d, or timm's one with an activation after it, for (N, C, H, W) float32."""

    def __init__(self, plain: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean: torch.Tensor
        self.running_var: torch.Tensor
        self.num_batches_tracked: torch.Tensor
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(plain, name))
        self.eps, self.momentum = plain.eps, 0.1 if plain.momentum is None else plain.momentum
        self.after = nn.Sequential(plain.drop, plain.act) if isinstance(plain, BatchNormAct2d) else nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise `values` (N, C, H, W); in training by the statistics of all processes."""
        if not self.training:
            normalised = nn.functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
            return cast(torch.Tensor, self.after(normalised))
        wide = values.float()
        count = _SumOverProcesses.apply(torch.tensor([float(values[:, 0].numel())], device=values.device))
        mean = _SumOverProcesses.apply(wide.sum((0, 2, 3))) / count
        centred = wide - mean[:, None, None]
        variance = _SumOverProcesses.apply((centred**2).sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(values.dtype)
        return cast(torch.Tensor, self.after(normalised))


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes; each value affects the losses of all processes, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total
