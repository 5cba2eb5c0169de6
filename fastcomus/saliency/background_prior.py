"""Robust background detection: a saliency map from one image, with no weights and no training.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014.
An object touches the image's border little for its size, the background much. That ratio, the boundary
connectivity, gives every superpixel a background probability, which weighs the colour contrast between
superpixels; a quadratic cost with a closed-form optimum joins both into a clean map.

Left open by the paper, or different here:
- superpixels: scikit-image's SLIC in CIELAB, 300 asked for (the paper: about 200), compactness 20 (the colour
  distance that weighs as much as one superpixel's step), 5 iterations (10 cost twice the time, gain nothing).
- one sigma_clr, 10 (the paper: 5 to 15), serves the boundary connectivity and the smoothness term.
- contrast is stretched to [0, 1] over the image before it serves as foreground weight: its scale grows with
  the number of superpixels, that of the background weight does not.
- the background term is weighed by 5, and the smoothness term joins neighbours and their neighbours. The
  paper's formula has weight 1 and direct neighbours: `background_weight=1.0, second_neighbours=False`.
- images are worked on with their longest side at most 400 px; the map is scaled up bilinearly.
- the map is smoothed (Gaussian, 1 % of the longest side) and stretched to [0, 1], so that neither superpixel
  edges nor the image's overall contrast decide where a threshold falls.
- artificial frames around a photograph are not removed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.segmentation import slic

from fastcomus.errors import InputError


@dataclass(frozen=True)
class BackgroundPrior:
    """A saliency proposer: one map per image. Thread-safe; depends on the image alone; deterministic.

    Units of the fields: colours in CIELAB units (about 1 is just noticeable), positions as fractions of
    width and height.
    """

    superpixels: int = 300  # asked for; SLIC gives about 10 % fewer
    compactness: float = 20.0  # SLIC, in CIELAB units
    sigma_colour: float = 10.0  # sigma_clr
    sigma_boundary: float = 1.0  # sigma_bndCon
    sigma_spatial: float = 0.25  # sigma_spa
    mu: float = 0.1  # smoothness that is left across the strongest edge
    background_weight: float = 5.0  # of the background term against the other two; 1 in the paper
    second_neighbours: bool = True  # smoothness also between neighbours of neighbours
    smoothing: float = 0.01  # Gaussian sigma, fraction of the longest side
    working_side_px: int = 400  # larger images are worked on at this longest side

    def __post_init__(self) -> None:
        sigmas = ("sigma_colour", "sigma_boundary", "sigma_spatial")
        for field in ("superpixels", "compactness", "working_side_px", *sigmas):
            value = getattr(self, field)
            if not value > 0:
                raise InputError(f"{field} must be above 0; got {value}. Give a positive number.")
        for field in ("mu", "background_weight", "smoothing"):
            if not getattr(self, field) >= 0:
                raise InputError(f"{field} must not be negative; got {getattr(self, field)}. Give 0 or more.")

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """`pixels` (H, W, 3) uint8 RGB, H, W >= 1 -> (1, H, W) float32 in [0, 1]; `name` is not used.

        At working size the most salient place has 1, the least 0. An image of one colour gives zeros:
        nothing stands out.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise InputError(
                "pixels must be a non-empty (H, W, 3) uint8 array; "
                f"got {pixels.shape} {pixels.dtype}. Convert the image to 8-bit RGB."
            )
        height, width = pixels.shape[:2]
        lab = _cielab(_shrunk(pixels, self.working_side_px))
        labels = _superpixel_labels(lab, self.superpixels, self.compactness)
        saliency = self._saliency_of(_regions(lab, labels))[labels].astype(np.float32)
        smooth = gaussian_filter(saliency, self.smoothing * max(labels.shape), mode="nearest")
        saliency_map = _stretched(smooth)
        if saliency_map.shape != (height, width):
            enlarged = Image.fromarray(saliency_map).resize((width, height), Image.Resampling.BILINEAR)
            saliency_map = np.clip(np.asarray(enlarged), 0.0, 1.0)
        return saliency_map[None]

    def _saliency_of(self, regions: _Regions) -> np.ndarray:
        """Saliency of each of the N superpixels, (N,) float64 in [0, 1]."""
        geodesic = _geodesic_distance(regions.colour_distance, regions.linked)
        connectivity = _boundary_connectivity(geodesic, regions.on_border, self.sigma_colour)
        background = _background_probability(connectivity, self.sigma_boundary)
        foreground = _stretched(_weighted_contrast(regions, background, self.sigma_spatial))
        joined = _with_second_neighbours(regions) if self.second_neighbours else regions.linked
        smoothness = _smoothness(regions.colour_distance, joined, self.sigma_colour, self.mu)
        if not foreground.any():  # one colour: the optimum is 0 (and not unique where there is no background)
            return foreground
        return _stretched(_optimum(self.background_weight * background, foreground, smoothness))


@dataclass(frozen=True)
class _Regions:
    """N superpixels and the graph on them."""

    colour_distance: np.ndarray  # (N, N) float64, d_app: Euclidean, between mean CIELAB colours
    position: np.ndarray  # (N, 2) float64, mean y and x as fractions of height and width
    touching: np.ndarray  # (N, N) bool, superpixels that share an edge of a pixel
    linked: np.ndarray  # (N, N) bool, touching, or both on the image's border
    on_border: np.ndarray  # (N,) bool


def _shrunk(pixels: np.ndarray, longest_side_px: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = longest_side_px / max(height, width)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


_CODES = np.arange(256) / 255.0
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)
_XYZ_OF_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
# Rows sum to 1: white becomes (1, 1, 1), so the division by the white point is in the matrix.
_XYZ_OF_RGB = (_XYZ_OF_RGB / _XYZ_OF_RGB.sum(axis=1, keepdims=True)).astype(np.float32)


def _cielab(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> (H, W, 3) float32 CIELAB, white D65."""
    xyz = _LINEAR[rgb] @ _XYZ_OF_RGB.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), np.float32(7.787) * xyz + np.float32(16.0 / 116.0))
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _superpixel_labels(lab: np.ndarray, count: int, compactness: float) -> np.ndarray:
    """(H, W) int64, superpixels numbered from 0 without gaps."""
    # slic stretches what it gets to [0, 1] first, so CIELAB units have to be divided likewise.
    span = float(lab.max() - lab.min()) or 1.0
    labels = slic(
        lab,
        n_segments=min(count, lab.shape[0] * lab.shape[1]),
        compactness=compactness / span,
        max_num_iter=5,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    used = np.bincount(labels.ravel()) > 0
    return (np.cumsum(used) - 1)[labels]


def _regions(lab: np.ndarray, labels: np.ndarray) -> _Regions:
    height, width = labels.shape
    count = int(labels.max()) + 1
    flat = labels.ravel()
    size_px = np.bincount(flat, minlength=count)
    colour = np.stack([np.bincount(flat, lab[..., c].ravel(), count) / size_px for c in range(3)], axis=1)
    y = np.bincount(flat, np.repeat(np.arange(height) + 0.5, width), count) / (size_px * height)
    x = np.bincount(flat, np.tile(np.arange(width) + 0.5, height), count) / (size_px * width)
    touching = np.zeros((count, count), dtype=bool)
    touching[labels[:, :-1], labels[:, 1:]] = True
    touching[labels[:-1], labels[1:]] = True
    touching |= touching.T
    np.fill_diagonal(touching, False)
    on_border = np.zeros(count, dtype=bool)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        on_border[side] = True
    # All border superpixels are neighbours: an object must not cut one background in two.
    linked = touching | (on_border[:, None] & on_border)
    np.fill_diagonal(linked, False)
    return _Regions(_pairwise_distance(colour), np.stack([y, x], axis=1), touching, linked, on_border)


def _pairwise_distance(points: np.ndarray) -> np.ndarray:
    return np.sqrt(sum((axis[:, None] - axis) ** 2 for axis in points.T))


def _geodesic_distance(colour_distance: np.ndarray, linked: np.ndarray) -> np.ndarray:
    """d_geo: least sum of colour distances along a path in the graph, (N, N) float32.

    Floyd-Warshall a row at a time: NumPy lets go of the GIL inside, SciPy's csgraph does not.
    """
    distance = np.where(linked, colour_distance, np.inf).astype(np.float32)
    np.fill_diagonal(distance, 0.0)
    through_k = np.empty_like(distance)
    for k in range(len(distance)):
        np.add(distance[:, k, None], distance[k], out=through_k)
        np.minimum(distance, through_k, out=distance)
    return distance


def _boundary_connectivity(geodesic: np.ndarray, on_border: np.ndarray, sigma_colour: float) -> np.ndarray:
    """BndCon: length along the image's border / sqrt(spanning area), (N,) float64."""
    belonging = np.exp(geodesic.astype(np.float64) ** 2 / (-2.0 * sigma_colour**2))
    spanning_area = belonging.sum(axis=1)
    border_length = belonging[:, on_border].sum(axis=1)
    return border_length / np.sqrt(spanning_area)


def _background_probability(connectivity: np.ndarray, sigma_boundary: float) -> np.ndarray:
    """w_bg = 1 - exp(-BndCon^2 / (2 sigma_bndCon^2)), (N,) in [0, 1]."""
    return 1.0 - np.exp(connectivity**2 / (-2.0 * sigma_boundary**2))


def _weighted_contrast(regions: _Regions, background: np.ndarray, sigma_spatial: float) -> np.ndarray:
    """wCtr: colour distance to all others, those near and likely background counting most, (N,)."""
    nearness = np.exp(_pairwise_distance(regions.position) ** 2 / (-2.0 * sigma_spatial**2))
    return (regions.colour_distance * nearness) @ background


def _with_second_neighbours(regions: _Regions) -> np.ndarray:
    steps = regions.touching.astype(np.float32)
    joined = regions.linked | (steps @ steps > 0)
    np.fill_diagonal(joined, False)
    return joined


def _smoothness(colour_distance: np.ndarray, joined: np.ndarray, sigma_colour: float, mu: float) -> np.ndarray:
    """w_ij = exp(-d_app^2 / (2 sigma_clr^2)) + mu, (N, N), 0 where superpixels are not joined."""
    return np.where(joined, np.exp(colour_distance**2 / (-2.0 * sigma_colour**2)) + mu, 0.0)


def _optimum(background: np.ndarray, foreground: np.ndarray, smoothness: np.ndarray) -> np.ndarray:
    """The s that makes the cost least, (N,) in [0, 1].

    sum of bg s^2 + sum of fg (s - 1)^2 + sum over pairs {i, j} of w_ij (s_i - s_j)^2
    """
    system = np.diag(background + foreground + smoothness.sum(axis=1)) - smoothness
    return np.linalg.solve(system, foreground)


def _stretched(values: np.ndarray) -> np.ndarray:
    """Affine to [0, 1]; zeros where the values are all the same but for rounding."""
    low, high = values.min(), values.max()
    if high - low < 1e-4:
        return np.zeros_like(values)
    return (values - low) / (high - low)
