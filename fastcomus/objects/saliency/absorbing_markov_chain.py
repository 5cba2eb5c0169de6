"""Absorbing Markov chain: a saliency map from one image, with no weights and no training.

B. Jiang, L. Zhang, H. Lu, C. Yang, M.-H. Yang, "Saliency Detection via Absorbing Markov Chain", ICCV 2013.
A random walk over superpixels prefers steps between like colours. Superpixels at the image's border have an absorbing
double: a walk that enters it ends. A walk from the background soon ends; one from an object, whose colours the border
has not, takes long. The expected number of steps, the absorbed time, is the saliency.

Left open by the paper, or different here:
- superpixels: scikit-image's SLIC in CIELAB, 250 asked for (the paper's number), compactness and iterations as in
  background_prior.py.
- images are worked on with their longest side at most 400 px; the map is smoothed and scaled up as in
  background_prior.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.objects.saliency.superpixels import (
    Regions,
    check_fields,
    compute_superpixel_saliency,
    find_within_two_steps,
    stretch_to_unit,
)


@dataclass(frozen=True)
class AbsorbingMarkovChain:
    """A saliency proposer: one map per image. Thread-safe; depends on the image alone; deterministic."""

    superpixels: int = 250  # asked for; SLIC gives about 10 % fewer
    compactness: float = 20.0  # SLIC, in CIELAB units
    sigma_colour: float = 10.0  # in CIELAB units; the paper's sigma^2 = 0.1 where lightness goes from 0 to 1
    middling: float = 2.0  # gamma, share of middling saliency from which smooth background is looked for
    smoothing: float = 0.01  # Gaussian sigma, fraction of the longest side
    working_side_px: int = 400  # larger images are worked on at this longest side

    def __post_init__(self) -> None:
        above_zero = ("superpixels", "compactness", "sigma_colour", "working_side_px")
        check_fields(self, above_zero, not_negative=("middling", "smoothing"))

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """`pixels` (H, W, 3) uint8 RGB, H, W >= 1 -> (1, H, W) float32 in [0, 1]; `name` is not used.

        At working size the most salient place has 1, the least 0. An image of one colour gives zeros:
        nothing stands out.
        """
        return compute_superpixel_saliency(
            pixels, self.working_side_px, self.superpixels, self.compactness, self.smoothing, self._compute_saliency
        )

    def _compute_saliency(self, regions: Regions) -> np.ndarray:
        """Saliency of each of the N superpixels, (N,) float64 in [0, 1]."""
        near = find_within_two_steps(regions.touching)
        joined = near | regions.linked
        if (
            regions.colour_distance.max() < 1e-3
        ):  # one colour: the absorbed time would only tell the distance to the border
            return np.zeros(len(joined))
        affinity = np.exp(regions.colour_distance / -self.sigma_colour)
        between = np.where(joined, affinity, 0.0)
        np.fill_diagonal(between, 1.0)
        # The double of a border superpixel has the superpixel's neighbours, and the superpixel itself.
        ending = np.where((near | np.eye(len(near), dtype=bool)) & regions.on_border, affinity, 0.0).sum(axis=1)
        saliency = stretch_to_unit(_compute_absorbed_time(between, ending, np.ones(len(between))))
        if _score_middling_share(saliency) > self.middling:
            saliency = stretch_to_unit(_compute_absorbed_time(between, ending, _compute_recurrence_time(between)))
        return saliency


def _compute_absorbed_time(between: np.ndarray, ending: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Y = T u, T = (I - Q)^-1: expected sum of `weights` (N,) over the superpixels that a walk from each visits, (N,).

    `between` (N, N): affinities a_ij of superpixels, 1 on the diagonal. `ending` (N,): summed affinity to absorbing
    doubles. Q is `between` divided by what both sum to in a row, D; so y solves (D - A) y = D u.
    """
    total = between.sum(axis=1) + ending
    return np.linalg.solve(np.diag(total) - between, total * weights)


def _score_middling_share(saliency: np.ndarray) -> float:
    """score: mean over superpixels of 1 for saliency near 0 or 1, up to 5 for saliency near 0.5.

    A clear object on a clear background gives a low one; a smooth background that the border does not reach, more.
    """
    counts, _ = np.histogram(saliency, bins=10, range=(0.0, 1.0))
    tenth = np.arange(1, 11)
    return float((counts / counts.sum()) @ np.minimum(tenth, 11 - tenth))


def _compute_recurrence_time(between: np.ndarray) -> np.ndarray:
    """H = 1 / pi, normalised to [0, 1]: steps until a walk that never ends comes back, (N,).

    pi, the equilibrium distribution, is each row's share of all affinities. It is high in smooth regions, so visits
    there count less.
    """
    recurrence = between.sum() / between.sum(axis=1)
    return recurrence / recurrence.max()
