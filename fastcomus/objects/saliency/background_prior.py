"""Robust background detection: a saliency map from one image, without weights or training.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014.
Compared with its size, an object touches the image's border little, the background much. This ratio, the boundary
connectivity, gives every superpixel a background probability, which weights the colour contrast between superpixels. A
quadratic cost with a closed-form optimum combines both into a clean map.

Left open by the paper, or different here:
- superpixels are SLIC's in CIELAB (slic.py), 300 asked for (the paper: about 200), with compactness 20 (the colour
  distance that weighs as much as the step from one superpixel to the next).
- one sigma_clr, 10 (the paper: 5 to 15), is used in the boundary connectivity and in the smoothness term.
- contrast is stretched to [0, 1] over the image before it becomes the foreground weight: its scale grows with the
  number of superpixels, that of the background weight does not.
- the background term has weight 5, and the smoothness term joins neighbours and their neighbours. The paper's formula
  has weight 1 and direct neighbours: `background_weight=1.0, second_neighbours=False`.
- images are shrunk to a longest side of at most 400 px; the map is enlarged bilinearly.
- the map is smoothed (Gaussian, 1 % of the longest side) and stretched to [0, 1], so that neither the edges of
  superpixels nor the image's overall contrast decide where a threshold falls.
- artificial frames around a photograph are not removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastcomus.backends.compiled import compile_function
from fastcomus.objects.saliency.prior_images import check_fields, stretch_to_unit
from fastcomus.objects.saliency.superpixels import (
    Regions,
    compute_pairwise_distance,
    compute_superpixel_saliency,
    find_within_two_steps,
)

_FAR = 6.0  # sigma_clr at which two superpixels no longer belong together: exp(-18)


@dataclass(frozen=True)
class BackgroundPrior:
    """A `Proposer` of one map per image, which depends on the image alone; thread-safe and deterministic.

    Its fields are in CIELAB units for colours (about 1 is just noticeable), else in fractions of width and height.
    """

    superpixels: int = 300  # asked for; SLIC gives about 10 % fewer
    compactness: float = 20.0  # SLIC, in CIELAB units
    sigma_colour: float = 10.0  # sigma_clr
    sigma_boundary: float = 1.0  # sigma_bndCon
    sigma_spatial: float = 0.25  # sigma_spa
    mu: float = 0.1  # smoothness that remains across the strongest edge
    background_weight: float = 5.0  # of the background term against the other two; 1 in the paper
    second_neighbours: bool = True  # smoothness also between neighbours of neighbours
    smoothing: float = 0.01  # Gaussian sigma, fraction of the longest side
    working_side_px: int = 400  # larger images are worked on at this longest side

    def __post_init__(self) -> None:
        sigmas = ("sigma_colour", "sigma_boundary", "sigma_spatial")
        above_zero = ("superpixels", "compactness", "working_side_px", *sigmas)
        check_fields(self, above_zero, not_negative=("mu", "background_weight", "smoothing"))

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Compute the saliency map (1, H, W) of an image; see `proposer.Proposer`."""
        return compute_superpixel_saliency(
            pixels, self.working_side_px, self.superpixels, self.compactness, self.smoothing, self._compute_saliency
        )

    def _compute_saliency(self, regions: Regions) -> np.ndarray:
        """Saliency of each of the N superpixels, (N,) float64 in [0, 1]."""
        geodesic = _compute_geodesic_distance(regions.colour_distance, regions.linked, _FAR * self.sigma_colour)
        connectivity = _compute_boundary_connectivity(geodesic, regions.on_border, self.sigma_colour)
        background = _compute_background_probability(connectivity, self.sigma_boundary)
        foreground = stretch_to_unit(_compute_weighted_contrast(regions, background, self.sigma_spatial))
        joined = _with_second_neighbours(regions) if self.second_neighbours else regions.linked
        smoothness = _compute_smoothness(regions.colour_distance, joined, self.sigma_colour, self.mu)
        if not foreground.any():  # one colour: the optimum is 0, or not unique where there is no background
            return foreground
        return stretch_to_unit(_find_optimum(self.background_weight * background, foreground, smoothness))


@compile_function
def _compute_geodesic_distance(colour_distance, linked, limit):  # type: ignore[no-untyped-def]
    """The paper's d_geo: least sums of colour distances along paths, (N, N) float32; above `limit` not the least."""
    count = len(linked)
    distance = np.full((count, count), np.inf, np.float32)
    for i in range(count):
        for j in range(count):
            if linked[i, j]:
                distance[i, j] = colour_distance[i, j]
        distance[i, i] = 0
    through = np.empty(count, np.float32)
    for k in range(count):  # only below the diagonal, since paths lead both ways
        for j in range(count):
            through[j] = distance[max(j, k), min(j, k)]
        for i in range(count):
            row, so_far = distance[i], through[i]
            if so_far <= limit:
                for j in range(i):
                    length = so_far + through[j]
                    row[j] = length if length < row[j] else row[j]
    for i in range(count):
        for j in range(i):
            distance[j, i] = distance[i, j]
    return distance


def _compute_boundary_connectivity(geodesic: np.ndarray, on_border: np.ndarray, sigma_colour: float) -> np.ndarray:
    """The paper's BndCon: length along the image's border / sqrt(spanning area), (N,) float64."""
    belonging = np.exp(geodesic.astype(np.float64) ** 2 / (-2.0 * sigma_colour**2))
    spanning_area = belonging.sum(axis=1)
    border_length = belonging[:, on_border].sum(axis=1)
    connectivity: np.ndarray = border_length / np.sqrt(spanning_area)
    return connectivity


def _compute_background_probability(connectivity: np.ndarray, sigma_boundary: float) -> np.ndarray:
    """The paper's w_bg = 1 - exp(-BndCon^2 / (2 sigma_bndCon^2)), (N,) in [0, 1]."""
    return 1.0 - np.exp(connectivity**2 / (-2.0 * sigma_boundary**2))


def _compute_weighted_contrast(regions: Regions, background: np.ndarray, sigma_spatial: float) -> np.ndarray:
    """The paper's wCtr: the sum of colour distances to all others, weighted by nearness and background, (N,)."""
    nearness = np.exp(compute_pairwise_distance(regions.position) ** 2 / (-2.0 * sigma_spatial**2))
    contrast: np.ndarray = (regions.colour_distance * nearness) @ background
    return contrast


def _with_second_neighbours(regions: Regions) -> np.ndarray:
    joined: np.ndarray = regions.linked | find_within_two_steps(regions.touching)
    return joined


def _compute_smoothness(colour_distance: np.ndarray, joined: np.ndarray, sigma_colour: float, mu: float) -> np.ndarray:
    """The paper's w_ij = exp(-d_app^2 / (2 sigma_clr^2)) + mu, (N, N); 0 where superpixels are not joined."""
    return np.where(joined, np.exp(colour_distance**2 / (-2.0 * sigma_colour**2)) + mu, 0.0)


def _find_optimum(background: np.ndarray, foreground: np.ndarray, smoothness: np.ndarray) -> np.ndarray:
    """The s, (N,) in [0, 1], of least sum of bg s^2, fg (s - 1)^2 and, over pairs {i, j}, w_ij (s_i - s_j)^2."""
    system = np.diag(background + foreground + smoothness.sum(axis=1)) - smoothness
    return np.linalg.solve(system, foreground)
