"""The mean of the classical priors' maps: they err in different places, so that it is better than each of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcomus.objects.saliency.prior_images import stretch_to_unit
from fastcomus.objects.saliency.proposer import Proposer


class PriorMean:
    """A `Proposer` of one map per image, stretched to [0, 1]; as thread-safe and deterministic as the priors.

    Args:
        priors: Methods without weights, of one map each.
    """

    def __init__(self, priors: Sequence[Proposer]) -> None:
        self.priors = tuple(priors)

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Compute the map (1, H, W) of an image; see `proposer.Proposer`."""
        maps = np.stack([prior(name, pixels) for prior in self.priors])
        return stretch_to_unit(maps.mean(axis=0, dtype=np.float32))
