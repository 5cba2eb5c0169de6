"""Batch normalisation by the statistics of a batch that several processes share."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn


def synchronize_batch_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """`network` with its batch normalisations exchanged for ones that see the batches of all processes.

    On CUDA devices torch's SyncBatchNorm, which knows no other; on a CPU the same in plain operations. Parameters and
    their names stay as they are.
    """
    if device.type == "cuda":
        return convert_sync_batchnorm(network)
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            network.add_module(name, SynchronizedBatchNorm(child))
        else:
            synchronize_batch_norms(child, device)
    return network


class SynchronizedBatchNorm(nn.Module):
    """Takes the place of a BatchNorm2d, or of timm's that has an activation behind it; (N, C, H, W) float32."""

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
        """Normalise (N, C, H, W); in training by the statistics of all processes."""
        if not self.training:
            normalised = nn.functional.batch_norm(
                values, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
            return self.after(normalised)
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
        return self.after(torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(values.dtype))


class _SumOverProcesses(torch.autograd.Function):
    """What every process adds reaches the loss of every other, so gradients are summed as well."""

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
