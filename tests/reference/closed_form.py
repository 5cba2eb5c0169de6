"""Closed-form weights and inputs, so that a network can be compared with a reference without shipping its weights.

Every tensor is a function of its state-dict key, its shape and a flat index alone: no random generator,
so the values are the same on every machine and torch version.
"""

import math
import zlib

import torch


def wave(key: str, n: int) -> torch.Tensor:
    """n values in [-1, 1] (float64), noise-like: 2 * frac(43758.5453 * sin(12.9898 * i + phase)) - 1.

    The phase comes from the CRC-32 of the key.
    """
    phase = (zlib.crc32(key.encode()) % 10_000) / 10_000 * 2 * math.pi
    i = torch.arange(n, dtype=torch.float64)
    return i.mul_(12.9898).add_(phase).sin_().mul_(43758.5453).remainder_(1.0).mul_(2).sub_(1)


def fill(model: torch.nn.Module, rename=lambda key: key) -> torch.nn.Module:
    """Fill a model's whole state dict in place. `rename` maps the model's own key to the reference's key."""
    state = model.state_dict()
    for own_key, tensor in state.items():
        key = rename(own_key)
        if not tensor.is_floating_point():
            continue
        values = wave(key, tensor.numel()).reshape(tensor.shape)
        if key.endswith("running_var"):
            values = 1.0 + 0.2 * values**2
        elif key.endswith("running_mean"):
            values = 0.02 * values
        elif key.endswith("bias"):
            values = 0.05 * values
        elif tensor.ndim == 1:  # the gain of a normalisation layer
            values = 1.0 + 0.1 * values
        else:
            fan_in = tensor[0].numel()
            values = values * math.sqrt(6.0 / fan_in)
        state[own_key] = values.to(tensor.dtype)
    model.load_state_dict(state)
    return model


def image(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """A smooth test image, float32, shape (1, channels, height, width), values in [-1, 1]."""
    y = torch.linspace(0, 1, height, dtype=torch.float64)[:, None]
    x = torch.linspace(0, 1, width, dtype=torch.float64)[None, :]
    planes = [torch.sin(2 * math.pi * ((c + 1) * x + (c + 2) * y * y) + c) for c in range(channels)]
    return torch.stack(planes)[None].to(torch.float32)
