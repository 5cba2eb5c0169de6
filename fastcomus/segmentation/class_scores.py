"""What the network says about one image, at the image's own size: labels, confidence and probabilities (step 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastcomus.images.found import UnreadableImage
from fastcomus.networks.edges import choose_grid, fit_to_edges
from fastcomus.segmentation.regions import OwnObjects, find_regions, remove_small_parts

_REACH = 0.125  # half the side of the window in which outlines follow edges, as a share of the image's shorter side
_BAND_VALUES = 2**20  # logits held at once while enlarging: 4 MiB of float32, whatever the image's size
_BAND_VALUES_ON_GPU = 2**26  # 256 MiB: most images in one pass, as each has to be waited for


@dataclass(frozen=True)
class Prediction:
    """What the network says about one image; labels and probabilities are computed from it when they are asked for.

    Attributes:
        image: Name of the image.
        logits: For each size that the network saw, (k + 1, h, w) float32 on the network's device; logit i belongs to
            pixel i * `output_stride` of the network's input, which is the image resized.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        output_stride: Pixels of the network's input per logit.
        error: Why the image could not be read; there are no logits then.
        pixels: The decoded image (H, W, 3) uint8, in host memory; None unless `predict` was asked to keep it.
        guide: The image as the network saw it, (3, H, W) uint8 on its device, whose edges objects follow; None where
            they do not.
        region_weight: Share of the connected part of the mask in which cluster a pixel belongs to, in [0, 1].
        least_part: Smaller parts and holes of the mask are closed, as a share of the image.
    """

    image: str
    logits: tuple[torch.Tensor, ...] = ()
    height: int = 0
    width: int = 0
    output_stride: int = 1
    error: UnreadableImage | None = None
    pixels: np.ndarray | None = None
    guide: torch.Tensor | None = None
    region_weight: float = 0.0
    least_part: float = 0.0

    def compute_labels(self, own: OwnObjects | None = None) -> np.ndarray:
        """Compute the label of every pixel: (height, width) uint16, 0 for background, c + 1 for cluster c.

        Args:
            own: What is known of the image's objects.
        """
        if self.guide is None and not (own and own.mask_weight):
            labels = compute_enlarged_argmax(self.logits, self.height, self.width, self.output_stride).numpy()
            return self._settle_parts(labels, own)
        return self.compute_labels_and_confidence(own)[0]

    def compute_labels_and_confidence(self, own: OwnObjects | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute the label of every pixel, and the highest of its own probabilities.

        Args:
            own: What is known of the image's objects.

        Returns:
            (height, width) uint16 labels, and (height, width) uint8 probabilities, 255 for 1.
        """
        labels, confidence, row = [], [], 0
        for probabilities in self._enlarge_probabilities(self.height, self.width):
            if own and own.mask_weight:
                rows = torch.from_numpy(own.class_map[row : row + probabilities.shape[1]] > 0)
                probabilities = with_second_opinion(probabilities, rows.to(probabilities.device), own.mask_weight)
            highest = probabilities.max(0)
            labels.append(highest.indices.int().cpu())
            confidence.append((255 * highest.values).round().to(torch.uint8).cpu())
            row += probabilities.shape[1]
        settled = self._settle_parts(torch.cat(labels).to(torch.uint16).numpy(), own)
        return settled, torch.cat(confidence).numpy()

    def _settle_parts(self, labels: np.ndarray, own: OwnObjects | None) -> np.ndarray:
        """Drop small parts of the mask, and decide by whole parts which cluster their pixels belong to."""
        if not (self.region_weight or self.least_part or (own and own.cluster_weight)):
            return labels
        is_object = remove_small_parts(labels > 0, self.least_part)
        bands = _enlarge_in_bands(self.logits, *self._choose_coarse_size(), self.output_stride)
        coarse = torch.cat([self._share_among_clusters(one).cpu() for one in bands], dim=1)
        regions = find_regions(is_object, coarse.numpy(), self.region_weight, own)
        settled = regions.label_whole_parts()
        rows, columns = np.nonzero((settled != labels) & is_object)  # the others agree with their part
        at_once = max(1, _BAND_VALUES // len(self.logits[0]))
        for start in range(0, len(rows), at_once) if regions.pixel_weight else ():
            some = rows[start : start + at_once], columns[start : start + at_once]
            places = [torch.from_numpy(one).to(self.logits[0].device) for one in some]
            enlarged = _enlarge_at(self.logits, self.height, self.width, self.output_stride, *places)
            shares = self._share_among_clusters(enlarged[..., None])[..., 0].T.cpu().numpy()
            scores = regions.pixel_weight * shares + regions.scores[regions.numbers[some] - 1]
            settled[some] = scores.argmax(axis=1) + 1
        return settled

    def compute_probabilities(self) -> np.ndarray:
        """Compute the probability of every cluster at a quarter of the network's largest input.

        Returns:
            (k + 1, h, w) float16 in [0, 1], background first. Enlarged to the image with half-pixel centres
            (`interpolate(..., align_corners=False)`), the most probable class of a pixel is its label, except at
            edges between two labels, and where whole parts decide (`region_weight`, `least_part`).
        """
        bands = [one.cpu() for one in self._enlarge_probabilities(*self._choose_coarse_size())]
        return torch.cat(bands, dim=1).half().numpy()

    def _choose_coarse_size(self) -> tuple[int, int]:
        """Return rows and columns: a quarter of the network's largest input."""
        finest = max(self.logits, key=lambda one: one[0].numel())
        height, width = (((side - 1) * self.output_stride + 1) // 4 for side in finest.shape[1:])
        return height, width

    @torch.inference_mode()
    def _enlarge_probabilities(self, height: int, width: int) -> Iterator[torch.Tensor]:
        """Yield probabilities (C, rows, width), a band of the enlarged image at a time."""
        background = self._fit_background()
        if background is not None:
            down, across = (
                _build_interpolation(side, of, 1, background.device)
                for side, of in zip((height, width), background.shape, strict=True)
            )
        row = 0
        for scores in _enlarge_in_bands(self.logits, height, width, self.output_stride):
            probabilities = self._normalise(scores)
            if background is not None:
                rows = down[row : row + scores.shape[1]]
                _set_background(probabilities, rows @ background @ across.T)
            yield probabilities
            row += scores.shape[1]

    def _fit_background(self) -> torch.Tensor | None:
        """Return the probability of the background, (H, W) as `guide`, whose edges it follows; None without a guide."""
        if self.guide is None:
            return None
        grid = choose_grid(*self.guide.shape[1:])
        coarse = [self._normalise(one)[0] for one in _enlarge_in_bands(self.logits, *grid, self.output_stride)]
        return fit_to_edges(torch.cat(coarse)[None], self.guide[None], _REACH)[0]

    def _normalise(self, scores: torch.Tensor) -> torch.Tensor:
        """Turn a band of `_enlarge_in_bands` (C, rows, width) into probabilities."""
        return scores.softmax(0) if len(self.logits) == 1 else scores / len(self.logits)

    def _share_among_clusters(self, scores: torch.Tensor) -> torch.Tensor:
        """Turn a band of `_enlarge_in_bands` into the probabilities (k, rows, width) of clusters, were all object."""
        objects = self._normalise(scores)[1:]
        return objects / objects.sum(0).clamp(min=torch.finfo(objects.dtype).tiny)


def compute_enlarged_argmax(
    logits: Sequence[torch.Tensor], height: int, width: int, output_stride: int
) -> torch.Tensor:
    """Enlarge logits bilinearly to the size of the image and take the highest label.

    With an output stride of 1, this is `interpolate(..., mode="bilinear", align_corners=False).argmax(0)`.

    Args:
        logits: (C, h, w) for each size that the network saw; several are averaged as probabilities. Logit i belongs
            to pixel i * output_stride of the network's input, which is the image resized.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        output_stride: Pixels of the network's input per logit.

    Returns:
        (height, width) uint16, on the CPU.
    """
    # `max` gives the first of equal values, as `argmax` does, several times faster over the first dimension.
    bands = [scores.max(0).indices.int().cpu() for scores in _enlarge_in_bands(logits, height, width, output_stride)]
    return torch.cat(bands).to(torch.uint16)


def with_second_opinion(probabilities: torch.Tensor, is_object: torch.Tensor, weight: float) -> torch.Tensor:
    """Mix probabilities with a second opinion on where objects are; which cluster they belong to stays the network's.

    Args:
        probabilities: (C, H, W), background first.
        is_object: (H, W) bool, the second opinion.
        weight: Of the second opinion, in [0, 1).

    Returns:
        (C, H, W) probabilities.
    """
    objects = is_object.to(probabilities.dtype)
    of_object = (1 - probabilities[:1]).clamp(min=torch.finfo(probabilities.dtype).tiny)
    background = (1 - weight) * probabilities[:1] + weight * (1 - objects)
    return torch.cat([background, probabilities[1:] * (1 - weight + weight * objects / of_object)])


def _set_background(probabilities: torch.Tensor, background: torch.Tensor) -> None:
    """Set the background of probabilities (C, H, W) to (H, W), in place; the clusters share the rest as before."""
    objects = probabilities[1:]
    objects *= (1 - background) / objects.sum(0).clamp(min=torch.finfo(objects.dtype).tiny)
    probabilities[0] = background


@torch.inference_mode()
def _enlarge_in_bands(
    logits: Sequence[torch.Tensor], height: int, width: int, output_stride: int
) -> Iterator[torch.Tensor]:
    """Enlarge logits (of several sizes: sum up their probabilities), a band (C, rows, width) of the image at a time.

    Bands keep memory from growing with the image.
    """
    down = [_build_interpolation(height, one.shape[1], output_stride, one.device) for one in logits]
    across = [_build_interpolation(width, one.shape[2], output_stride, one.device).T for one in logits]
    values = _BAND_VALUES if logits[0].device.type == "cpu" else _BAND_VALUES_ON_GPU
    rows = max(1, values // (len(logits[0]) * width))
    for start in range(0, height, rows):
        enlarged = [
            torch.matmul(torch.matmul(rows_of[start : start + rows], one), columns_of)
            for one, rows_of, columns_of in zip(logits, down, across, strict=True)
        ]
        yield enlarged[0] if len(logits) == 1 else sum((one.softmax(0) for one in enlarged[1:]), enlarged[0].softmax(0))


@torch.inference_mode()
def _enlarge_at(
    logits: Sequence[torch.Tensor],
    height: int,
    width: int,
    output_stride: int,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> torch.Tensor:
    """What `_enlarge_in_bands` yields for some pixels, (C, P), whose rows and columns (P,) are given."""
    enlarged = []
    for one in logits:
        up, below = (part[rows] for part in _locate_pixels(height, one.shape[1], output_stride, one.device))
        left, beside = (part[columns] for part in _locate_pixels(width, one.shape[2], output_stride, one.device))
        below, beside = below.float(), beside.float()
        down, right = ((first + 1).clamp(max=side - 1) for first, side in zip((up, left), one.shape[1:], strict=True))
        above = one[:, up, left] * (1 - beside) + one[:, up, right] * beside
        enlarged.append(
            above * (1 - below) + (one[:, down, left] * (1 - beside) + one[:, down, right] * beside) * below
        )
    return enlarged[0] if len(logits) == 1 else sum((one.softmax(0) for one in enlarged[1:]), enlarged[0].softmax(0))


def _locate_pixels(
    target: int, source: int, output_stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the logit before each of `target` pixels, (target,) int64, and the weight of the next, float64 in [0, 1)."""
    input_side = (source - 1) * output_stride + 1
    pixels = torch.arange(target, device=device)
    position = (((pixels.double() + 0.5) * (input_side / target) - 0.5) / output_stride).clamp(0, source - 1)
    first = position.long()
    return first, position - first


def _build_interpolation(target: int, source: int, output_stride: int, device: torch.device) -> torch.Tensor:
    """Weights of the logits in each pixel, (target, source) float32, at most two of them not 0 in a row."""
    first, weight = _locate_pixels(target, source, output_stride, device)
    pixels = torch.arange(target, device=device)
    matrix = torch.zeros(target, source, dtype=torch.float64, device=device)
    matrix[pixels, first] = 1 - weight
    matrix[pixels, (first + 1).clamp(max=source - 1)] += weight
    return matrix.float()
