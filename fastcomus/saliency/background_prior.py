"""Robust background detection: a saliency map without any weights.

W. Zhu, S. Liang, Y. Wei, J. Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.filters import threshold_otsu
from skimage.segmentation import slic


@dataclass(frozen=True)
class BackgroundPrior:
    superpixels: int = 250
    compactness: float = 10.0
    sigma_colour: float = 10.0
    sigma_boundary: float = 1.0
    sigma_spatial: float = 0.25
    mu: float = 0.1
    background_weight: float = 5.0
    working_side_px: int = 400

    def __call__(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """`pixels` (H, W, 3) uint8 RGB -> (1, H, W) float32 in [0, 1]. `name` is not used."""
        height, width = pixels.shape[:2]
        small = _shrunk(pixels, self.working_side_px)
        lab = _lab(small)
        labels = _superpixels(lab, self.superpixels, self.compactness)
        graph = _region_graph(lab, labels)
        saliency = self._optimised(graph)
        out = saliency.astype(np.float32)[labels]
        if out.shape != (height, width):
            out = np.asarray(Image.fromarray(out).resize((width, height), Image.Resampling.BILINEAR))
        return np.clip(out, 0.0, 1.0)[None]

    def _optimised(self, graph: _Graph) -> np.ndarray:
        distance = _geodesic(graph.colour_distance, graph.linked)
        connectivity = _boundary_connectivity(distance, graph.on_border, self.sigma_colour)
        background = 1.0 - np.exp(-(connectivity**2) / (2.0 * self.sigma_boundary**2))
        contrast = _contrast(graph, background, self.sigma_spatial)
        foreground = _stretched(contrast)
        if not foreground.any():
            return foreground
        foreground = np.where(foreground < threshold_otsu(foreground), 0.0, foreground)
        w = np.where(
            _second_order(graph.linked, graph.on_border),
            np.exp(-(graph.colour_distance**2) / (2.0 * self.sigma_colour**2)) + self.mu,
            0.0,
        )
        a = np.diag(w.sum(1) + self.background_weight * background + foreground) - w
        return _stretched(np.linalg.solve(a, foreground))


@dataclass(frozen=True)
class _Graph:
    colour_distance: np.ndarray
    position: np.ndarray
    linked: np.ndarray
    on_border: np.ndarray


def _shrunk(pixels: np.ndarray, side_px: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


_v = np.arange(256) / 255.0
_LINEAR = np.where(_v <= 0.04045, _v / 12.92, ((_v + 0.055) / 1.055) ** 2.4).astype(np.float32)
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float64,
)
_TO_XYZ = (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).astype(np.float32)


def _lab(rgb: np.ndarray) -> np.ndarray:
    xyz = _LINEAR[rgb] @ _TO_XYZ.T
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16.0 / 116.0)
    lab = np.empty_like(f)
    lab[..., 0] = 116.0 * f[..., 1] - 16.0
    lab[..., 1] = 500.0 * (f[..., 0] - f[..., 1])
    lab[..., 2] = 200.0 * (f[..., 1] - f[..., 2])
    return lab


def _superpixels(lab: np.ndarray, count: int, compactness: float) -> np.ndarray:
    span = float(lab.max() - lab.min())
    if span < 1e-3 or min(lab.shape[:2]) < 2:
        span = max(span, 1.0)
    labels = slic(
        lab, n_segments=count, compactness=compactness / span, convert2lab=False, start_label=0, channel_axis=-1
    )
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _region_graph(lab: np.ndarray, labels: np.ndarray) -> _Graph:
    height, width = labels.shape
    n = int(labels.max()) + 1
    flat = labels.ravel()
    size = np.bincount(flat, minlength=n)
    colour = np.stack([np.bincount(flat, lab[..., c].ravel(), n) / size for c in range(3)], axis=1)
    y, x = np.mgrid[:height, :width]
    position = np.stack(
        [np.bincount(flat, y.ravel(), n) / size / height, np.bincount(flat, x.ravel(), n) / size / width], axis=1
    )
    linked = np.zeros((n, n), dtype=bool)
    linked[labels[:, :-1], labels[:, 1:]] = True
    linked[labels[:-1], labels[1:]] = True
    linked |= linked.T
    on_border = np.zeros(n, dtype=bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        on_border[edge] = True
    linked |= on_border[:, None] & on_border[None, :]
    np.fill_diagonal(linked, False)
    return _Graph(_pairwise(colour), position, linked, on_border)


def _pairwise(points: np.ndarray) -> np.ndarray:
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))


def _geodesic(colour_distance: np.ndarray, linked: np.ndarray) -> np.ndarray:
    distance = np.where(linked, colour_distance, np.inf).astype(np.float32)
    np.fill_diagonal(distance, 0.0)
    via = np.empty_like(distance)
    for k in range(len(distance)):
        np.add(distance[:, k, None], distance[None, k], out=via)
        np.minimum(distance, via, out=distance)
    return distance


def _boundary_connectivity(distance: np.ndarray, on_border: np.ndarray, sigma: float) -> np.ndarray:
    similar = np.exp(-(distance.astype(np.float64) ** 2) / (2.0 * sigma**2))
    return similar[:, on_border].sum(1) / np.sqrt(similar.sum(1))


def _contrast(graph: _Graph, background: np.ndarray, sigma_spatial: float) -> np.ndarray:
    spatial = np.exp(-(_pairwise(graph.position) ** 2) / (2.0 * sigma_spatial**2))
    return (graph.colour_distance * spatial) @ background


def _second_order(linked: np.ndarray, on_border: np.ndarray) -> np.ndarray:
    f = linked.astype(np.float32)
    near = linked | (f @ f > 0) & ~on_border[:, None] & ~on_border[None]
    np.fill_diagonal(near, False)
    return near


def _stretched(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-4:
        return np.zeros_like(values)
    return (values - low) / (high - low)
