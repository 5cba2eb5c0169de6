"""The saliency methods that need no weights."""

from __future__ import annotations

import torch

from fastcomus.config import EmbedConfig
from fastcomus.objects.saliency.proposer import Proposer


def _load_background_prior(name: str, config: EmbedConfig, device: torch.device) -> Proposer:
    from fastcomus.objects.saliency.background_prior import BackgroundPrior

    return BackgroundPrior()


def _load_minimum_barrier(name: str, config: EmbedConfig, device: torch.device) -> Proposer:
    from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier

    return MinimumBarrier()


def _load_absorbing_markov_chain(name: str, config: EmbedConfig, device: torch.device) -> Proposer:
    from fastcomus.objects.saliency.absorbing_markov_chain import AbsorbingMarkovChain

    return AbsorbingMarkovChain()
