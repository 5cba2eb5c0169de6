"""Absorbing Markov chain: a saliency map from one image, without weights or training.

B. Jiang, L. Zhang, H. Lu, C. Yang, M.-H. Yang, "Saliency Detection via Absorbing Markov Chain", ICCV 2013.
A random walk over superpixels prefers steps between similar colours. Superpixels at the image's border have an
absorbing copy, in which a walk ends. A walk from the background ends soon; one from an object, whose colours do not
occur at the border, takes long. The expected number of steps, the absorbed time, is the saliency.

Left open by the paper, or different here:
- superpixels are SLIC's in CIELAB, 250 asked for (the paper's number), with compactness and iterations as
  in background_prior.py.
- images are shrunk to a longest side of at most 400 px; the map is smoothed and enlarged as in background_prior.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.objects.saliency.prior_images import check_fields, stretch_to_unit
from fastcomus.objects.saliency.superpixels import (
    Regions,
    compute_superpixel_saliency,
    find_within_two_steps,
)


@dataclass(frozen=True)
class AbsorbingMarkovChain:
    """A `Proposer` of one map per image, which depends on the image alone; thread-safe and deterministic."""

    superpixels: int = 250  # asked for; SLIC gives about 10 % fewer
    compactness: float = 20.0  # SLIC, in CIELAB units
    sigma_colour: float = 10.0  # in CIELAB units; the paper's sigma^2 = 0.1 where lightness goes from 0 to 1
    middling: float = 2.0  # gamma: above this score of middling saliency the update for smooth background is made
    smoothing: float = 0.01  # Gaussian sigma, fraction of the longest side
    working_side_px: int = 400  # larger images are worked on at this longest side

    def __post_init__(self) -> None:
        above_zero = ("superpixels", "compactness", "sigma_colour", "working_side_px")
        check_fields(self, above_zero, not_negative=("middling", "smoothing"))

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Compute the saliency map (1, H, W) of an image; see `proposer.Proposer`."""
        return compute_superpixel_saliency(
            pixels, self.working_side_px, self.superpixels, self.compactness, self.smoothing, self._compute_saliency
        )

    def _compute_saliency(self, regions: Regions) -> np.ndarray:
        """Saliency of each of the N superpixels, (N,) float64 in [0, 1]."""
        near = find_within_two_steps(regions.touching)
        joined = near | regions.linked
        if regions.colour_distance.max() < 1e-3:  # one colour: absorbed time would be mere distance to the border
            return np.zeros(len(joined))
        affinity = np.exp(regions.colour_distance / -self.sigma_colour)
        between = np.where(joined, affinity, 0.0)
        np.fill_diagonal(between, 1.0)
        # The copy of a border superpixel is joined to the superpixel and to its neighbours.
        ending = np.where((near | np.eye(len(near), dtype=bool)) & regions.on_border, affinity, 0.0).sum(axis=1)
        saliency = stretch_to_unit(_compute_absorbed_time(between, ending, np.ones(len(between))))
        if _score_middling_share(saliency) > self.middling:
            saliency = stretch_to_unit(_compute_absorbed_time(between, ending, _compute_recurrence_time(between)))
        return saliency


def _compute_absorbed_time(between: np.ndarray, ending: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The paper's y = (I - Q)^-1 u: the expected sum of `weights` u over a walk's steps until it ends, (N,).

    `between`: (N, N), the affinities of superpixels, 1 on the diagonal; `ending`: (N,), sums of those to absorbing
    copies. With D the row sums of both, Q = D^-1 A, so that y solves (D - A) y = D u.
    """
    total = between.sum(axis=1) + ending
    return np.linalg.solve(np.diag(total) - between, total * weights)


def _score_middling_share(saliency: np.ndarray) -> float:
    """The paper's score: the mean of 1 for saliency near 0 or 1, up to 5 near 0.5; low for a clear object."""
    counts, _ = np.histogram(saliency, bins=10, range=(0.0, 1.0))
    tenth = np.arange(1, 11)
    return float((counts / counts.sum()) @ np.minimum(tenth, 11 - tenth))


def _compute_recurrence_time(between: np.ndarray) -> np.ndarray:
    """The paper's h = 1 / pi, its largest 1: expected steps until a walk returns, (N,); low in smooth regions."""
    recurrence = between.sum() / between.sum(axis=1)
    share: np.ndarray = recurrence / recurrence.max()
    return share
