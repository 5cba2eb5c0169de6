"""`--objects several`: the objects of a photograph one by one, by how each differs from what lies around it.

A saliency map has all objects in one, and more than one class in a mask teaches nothing. Here superpixels that are
alike in colour and in the encoder's patch features are joined step by step (Ward's criterion, neighbours only), so that
everything that may be an object is a node of the tree, beside the saliency map's mask and its parts. A node is worth

    (colour contrast / 20 + feature contrast) (0.3 + saliency) area^(1/4) exp(-4 border^2 / area),

both contrasts between the node and the superpixels that touch it: the Euclidean distance of mean CIELAB colours, and
one minus the cosine of mean features. `saliency` is its mean, `area` its share of the photograph, `border` its share of
the photograph's border, of which objects cover little for their size.

Nodes have their turn by worth, the saliency map's mask and its parts before others that are worth up to twice as much.
A node is an object if it is worth a share of the best one and overlaps none of the objects much, until there are
enough. A node that falls apart into smaller ones which are worth nearly as much is no object. Of two nodes, one in the
other, only one is an object, unless the inner one has other features than the rest of the outer one. A photograph whose
best node is worth next to nothing has no object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import csr_array
from sklearn.cluster import ward_tree
from torch.nn import functional

from fastcomus.backends.cpu import compute_otsu_threshold
from fastcomus.backends.interface import Image
from fastcomus.backends.threads import start_threads
from fastcomus.networks.encoders import PatchEncoder
from fastcomus.objects.saliency.prior_images import convert_to_cielab
from fastcomus.objects.saliency.proposer import NetworkProposer, Proposer, choose_images_per_pass, resize_to_square
from fastcomus.objects.saliency.slic import cut_superpixels

_SIDE = 320  # pixels of the square on which all is done
_SUPERPIXELS, _COMPACTNESS = 300, 20.0
_COLOUR, _FEATURE = 20.0, 0.5  # differences that weigh alike when superpixels are joined
_MOST = 8  # objects of a photograph
_LEAST_SHARE = 0.2  # of the best node's worth
_SALIENT_FIRST = 2.0  # times as much must others be worth to have their turn before the saliency map's mask and parts
_LEAST_WORTH = 0.05  # of the best node, else there is no object
_CLEAR_SHARE = 0.65  # of a node's worth, of parts that are objects instead of it
_SMALLER = 0.75  # of its area: what each has at most, and all have together at least
_MOST_OVERLAP = 0.15  # IoU of two objects; what lies on an object may be one too
_INSIDE = 0.5  # of a node's area, from which on it lies in another
_LEAST_DIFFERENCE = 0.6  # one minus the cosine of the features of what lies in an object, and of the rest of it


class SeveralObjects:
    """A `NetworkProposer` of several masks per image, (M, S, S) bool, larger ones first.

    Args:
        saliency: What finds where objects are; where it gives several maps, the largest value counts.
        encoder: Any network with patch features.
        theta: The threshold on saliency, for the mask that competes with the nodes: "otsu" or a number.
    """

    def __init__(self, saliency: Proposer | NetworkProposer, encoder: PatchEncoder, theta: str) -> None:
        self.saliency, self.encoder, self.theta = saliency, encoder, theta
        self.side = max(1, round(_SIDE / encoder.patch_size)) * encoder.patch_size
        self.needs_host_pixels = callable(saliency) or saliency.needs_host_pixels
        self.batch = choose_images_per_pass(encoder.mean.device) if callable(saliency) else saliency.batch
        self._shape: tuple[int, ...] = ()  # of what the network for saliency takes

    def prepare(self, pixels: Image) -> torch.Tensor:
        """See `NetworkProposer.prepare`: the image and what belongs to its saliency, flattened, uint8."""
        image = resize_to_square(pixels, self.side)
        if callable(self.saliency):
            maps = self.saliency("", np.asarray(pixels)).astype(np.float32)
            whole = maps.max(axis=0) if len(maps) else np.zeros(maps.shape[1:], np.float32)
            beside = resize_to_square(np.rint(whole[..., None] * 255).astype(np.uint8), self.side)
        else:
            beside = self.saliency.prepare(pixels)
        self._shape = tuple(beside.shape)
        return torch.cat([image.flatten(), beside.flatten()])

    @torch.inference_mode()
    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """See `NetworkProposer.propose`."""
        size = 3 * self.side**2
        images = prepared[:, :size].unflatten(1, (3, self.side, self.side))
        beside = prepared[:, size:].unflatten(1, self._shape)
        maps = list(beside.float() / 255) if callable(self.saliency) else self.saliency.propose(beside)
        features = self.encoder(images).keys.cpu().numpy()
        on_host = images.permute(0, 2, 3, 1).cpu().numpy()
        saliency = [_join_maps(one, self.side) for one in maps]
        with start_threads(torch.get_num_threads()) as threads:
            found = threads.map(self._find, zip(on_host, saliency, features, strict=True))
            return [torch.from_numpy(masks).to(self.encoder.mean.device) for masks in found]

    def _find(self, given: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        return find_several(*given, self.theta)


def find_several(pixels: np.ndarray, saliency: np.ndarray, features: np.ndarray, theta: str = "otsu") -> np.ndarray:
    """Find the objects of one image.

    Args:
        pixels: (H, W, 3) uint8.
        saliency: (H, W) float32 in [0, 1].
        features: (h, w, C) float32 of patches.
        theta: The threshold on saliency: "otsu" or a number.

    Returns:
        (M, H, W) bool, M from 0 to 8, larger ones first; the IoU of two of them is at most 0.15.
    """
    lab = convert_to_cielab(pixels)
    labels = cut_superpixels(lab, _SUPERPIXELS, _COMPACTNESS)
    parts = _measure_superpixels(lab, labels, saliency, features)
    mask = saliency > (compute_otsu_threshold(saliency) if theta == "otsu" else float(theta))
    salient = _select_salient(mask, labels, len(parts.area))
    nodes = np.concatenate([salient, _build_tree(parts)])
    chosen = _choose(nodes, _compute_worth(nodes, parts), len(salient), parts)
    chosen.sort(key=lambda node: -float(parts.area[nodes[node]].sum()))
    masks: np.ndarray = nodes[chosen][:, labels] if chosen else np.zeros((0, *labels.shape), bool)
    return masks


@dataclass(frozen=True)
class _Superpixels:
    """N superpixels.

    `area` and `border` are shares that sum to 1, (N,). `colour` (N, 3), `feature` (N, C) and `saliency` (N,) are means,
    `touching` says who touches whom, (N, N) bool.
    """

    area: np.ndarray
    border: np.ndarray
    colour: np.ndarray
    feature: np.ndarray
    saliency: np.ndarray
    touching: np.ndarray


def _join_maps(maps: torch.Tensor, side: int) -> np.ndarray:
    """The largest of maps (M, h, w), as (side, side) float32."""
    if not len(maps):
        return np.zeros((side, side), np.float32)
    whole = maps.float().amax(0)[None, None]
    return functional.interpolate(whole, (side, side), mode="bilinear", align_corners=False)[0, 0].cpu().numpy()


def _measure_superpixels(
    lab: np.ndarray, labels: np.ndarray, saliency: np.ndarray, features: np.ndarray
) -> _Superpixels:
    flat, count = labels.ravel(), int(labels.max()) + 1
    (height, width), (rows, columns) = labels.shape, features.shape[:2]
    pixels = np.bincount(flat, minlength=count).astype(np.float64)
    patch = (np.arange(height) * rows // height)[:, None] * columns + np.arange(width) * columns // width
    shares = np.bincount(flat * (rows * columns) + patch.ravel(), minlength=count * rows * columns)
    rest = features.reshape(rows * columns, -1).astype(np.float64)
    rest = _scale_rows(rest - rest.mean(axis=0))
    touching = np.zeros((count, count), bool)
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        touching[one, other] = touching[other, one] = True
    np.fill_diagonal(touching, False)
    border = np.bincount(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]), minlength=count)
    channels = [*np.moveaxis(lab, 2, 0), saliency]
    means = np.stack([np.bincount(flat, one.ravel(), count) for one in channels], axis=1) / pixels[:, None]
    feature = shares.reshape(count, -1) / pixels[:, None] @ rest
    return _Superpixels(pixels / pixels.sum(), border / border.sum(), means[:, :3], feature, means[:, 3], touching)


def _select_salient(mask: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The superpixels most of which lie in the mask, and in each of its separate parts: (1 + parts, N) bool."""
    parts, number = ndimage.label(mask)
    pairs = np.bincount((parts * count + labels).ravel(), minlength=(number + 1) * count).reshape(number + 1, count)
    inside = pairs[1:]
    return np.concatenate([inside.sum(axis=0)[None], inside]) * 2 > pairs.sum(axis=0)


def _build_tree(parts: _Superpixels) -> np.ndarray:
    """All nodes, (2 N - 1, N) bool, of the tree that joins like neighbours."""
    like = np.concatenate([parts.feature / _FEATURE, parts.colour / _COLOUR], axis=1)
    joined, _, count, _ = ward_tree(like, connectivity=csr_array(parts.touching))
    nodes = np.zeros((count + len(joined), count), bool)
    np.fill_diagonal(nodes, True)
    for number, (one, other) in enumerate(joined):
        nodes[count + number] = nodes[one] | nodes[other]
    return nodes


def _compute_worth(nodes: np.ndarray, parts: _Superpixels) -> np.ndarray:
    """What each node (M, N) bool is worth as an object, (M,); see the top of this file."""
    around = (nodes @ parts.touching.astype(np.float32) > 0) & ~nodes
    inside_by_area, around_by_area = nodes * parts.area, around * parts.area
    area, area_around = inside_by_area.sum(axis=1), around_by_area.sum(axis=1)
    is_usable = (area > 0) & (area_around > 0)  # not empty, nor the whole image
    shares = inside_by_area / np.maximum(area, 1e-12)[:, None]
    shares_around = around_by_area / np.maximum(area_around, 1e-12)[:, None]
    colour = np.linalg.norm(shares @ parts.colour - shares_around @ parts.colour, axis=1)
    feature = _scale_rows(shares @ parts.feature) - _scale_rows(shares_around @ parts.feature)
    at_border = np.exp(-4 * (nodes @ parts.border) ** 2 / np.maximum(area, 1e-12))
    contrast = colour / 20 + (feature**2).sum(axis=1) / 2  # one minus the cosine, but 0 where features are
    worth: np.ndarray = contrast * (0.3 + shares @ parts.saliency) * area**0.25 * at_border * is_usable
    return worth


def _scale_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (N, C) at unit length; zeros stay."""
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return scaled


def _choose(nodes: np.ndarray, worth: np.ndarray, salient: int, parts: _Superpixels) -> list[int]:
    """The nodes that are objects, in the order of their turns; the first `salient` are the saliency map's."""
    best = worth.max()
    if best < _LEAST_WORTH:
        return []
    chosen: list[int] = []
    areas, turn = nodes @ parts.area, worth.copy()
    turn[:salient] *= _SALIENT_FIRST
    for node in np.argsort(-turn, kind="stable"):
        if len(chosen) == _MOST:
            break
        if worth[node] < _LEAST_SHARE * best:
            continue
        common = (nodes[chosen] & nodes[node]) @ parts.area
        is_apart = (common <= _MOST_OVERLAP * (areas[chosen] + areas[node] - common)).all()
        if not is_apart:
            continue
        inside = common > _INSIDE * np.minimum(areas[chosen], areas[node])
        if any(_has_like_features(nodes[node], nodes[other], parts) for other in np.array(chosen, int)[inside]):
            continue
        if not _has_clear_parts(int(node), nodes, worth, areas, parts.area):
            chosen.append(int(node))
    return chosen


def _has_like_features(one: np.ndarray, other: np.ndarray, parts: _Superpixels) -> bool:
    """Whether the smaller of two nodes (N,) bool has features like those of the rest of the larger one."""
    small, large = (one, other) if one @ parts.area < other @ parts.area else (other, one)
    inside, rest = _scale_rows(np.stack([small * parts.area, (large & ~small) * parts.area]) @ parts.feature)
    return bool(((inside - rest) ** 2).sum() / 2 < _LEAST_DIFFERENCE)  # as in `_compute_worth`


def _has_clear_parts(node: int, nodes: np.ndarray, worth: np.ndarray, areas: np.ndarray, area: np.ndarray) -> bool:
    """Whether at least two nodes in this one, worth nearly as much, make up most of it; `areas`: those of all nodes."""
    smaller = np.flatnonzero((worth >= _CLEAR_SHARE * worth[node]) & (areas < _SMALLER * areas[node]))
    inside = smaller[~(nodes[smaller] & ~nodes[node]).any(axis=1)]
    covered, count = np.zeros(nodes.shape[1], bool), 0
    for one in inside[np.argsort(-worth[inside], kind="stable")]:
        if not (nodes[one] & covered).any():
            covered |= nodes[one]
            count += 1
    return bool(count > 1 and covered @ area >= _SMALLER * areas[node])
