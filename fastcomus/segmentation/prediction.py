"""Class maps of images by the trained segmenter (steps 10 and 11)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastcomus.backends.decoded_images import DecodedImage, resize_planes
from fastcomus.backends.interface import Backend, Image
from fastcomus.backends.machine import move_to_device
from fastcomus.config import PredictConfig
from fastcomus.images.found import UnreadableImage
from fastcomus.networks.bf16_on_cpu import use_bf16_shortcuts
from fastcomus.networks.fitting_batches import FittingBatches, choose_batch_limit
from fastcomus.networks.fixed_padding import align_side
from fastcomus.networks.precision import use_precision
from fastcomus.segmentation.segmenter import Segmenter
from fastcomus.settings import parse_scales

WINDOW = 64  # neighbouring images that may share batches
_BAND_VALUES = 2**20  # logits held at once while enlarging: 4 MiB of float32, whatever the image's size


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
    """

    image: str
    logits: tuple[torch.Tensor, ...] = ()
    height: int = 0
    width: int = 0
    output_stride: int = 1
    error: UnreadableImage | None = None
    pixels: np.ndarray | None = None

    def compute_labels(self) -> np.ndarray:
        """Compute the label of every pixel: (height, width) uint16, 0 for background, c + 1 for cluster c."""
        return compute_enlarged_argmax(self.logits, self.height, self.width, self.output_stride).numpy()

    def compute_labels_and_confidence(
        self, is_object: np.ndarray | None = None, weight: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the label of every pixel and its probability.

        Args:
            is_object: (height, width) bool, a second opinion on where objects are.
            weight: Of the second opinion, in [0, 1); the network counts the rest (`with_second_opinion`).

        Returns:
            (height, width) uint16 labels, and (height, width) uint8 probabilities, 255 for 1.
        """
        labels, confidence, row = [], [], 0
        for scores in _enlarge_in_bands(self.logits, self.height, self.width, self.output_stride):
            probabilities = scores.softmax(0) if len(self.logits) == 1 else scores / len(self.logits)
            if is_object is not None and weight:
                rows = torch.from_numpy(is_object[row : row + scores.shape[1]])
                probabilities = with_second_opinion(probabilities, rows.to(scores.device), weight)
            highest = probabilities.max(0)
            labels.append(highest.indices.int().cpu())
            confidence.append((255 * highest.values).round().to(torch.uint8).cpu())
            row += scores.shape[1]
        return torch.cat(labels).to(torch.uint16).numpy(), torch.cat(confidence).numpy()

    def compute_probabilities(self) -> np.ndarray:
        """Compute the probability of every cluster at a quarter of the network's largest input.

        Returns:
            (k + 1, h, w) float16 in [0, 1], background first. Enlarged to the image with half-pixel centres
            (`interpolate(..., align_corners=False)`), the most probable class of a pixel is its label, except at
            edges between two labels.
        """
        finest = max(self.logits, key=lambda one: one[0].numel())
        height, width = (((side - 1) * self.output_stride + 1) // 4 for side in finest.shape[1:])
        bands = [scores.cpu() for scores in _enlarge_in_bands(self.logits, height, width, self.output_stride)]
        scores = torch.cat(bands, dim=1)
        return (scores.softmax(0) if len(self.logits) == 1 else scores / len(self.logits)).half().numpy()


def predict(
    segmenter: Segmenter,
    names: Sequence[str],
    decoded: Callable[[Sequence[Sequence[str]], Callable[[DecodedImage], Any]], Iterator[Any]],
    config: PredictConfig,
    precision: str,
    backend: Backend,
    done: Collection[str] = (),
    keep_pixels: bool = False,
) -> Iterator[Prediction]:
    """Run the network on images in batches.

    Images that the network sees at the same size share a batch, within windows of WINDOW names. The size of a batch can
    change the last bits of a result, so batches depend on `names` alone: a batch with one image to do is computed
    whole, and an interrupted prediction continues to the same bytes.

    Args:
        segmenter: The network; it is put into eval mode and onto the backend's device.
        names: Names of all images.
        decoded: From groups of names and a function, the function's result for each decoded image in order, as
            `decode_images` gives it.
        config: Sizes, batch size, and whether mirror images are averaged in.
        precision: "float32" or "bf16".
        backend: Where the network runs.
        done: Names that need no prediction any more.
        keep_pixels: Whether predictions carry the decoded pixels (uint8, in host memory). Images whose batches are not
            full yet, at most WINDOW, are then held at their full size, besides those read ahead.

    Yields:
        A prediction for every name that is not done, those of a batch together.
    """
    segmenter.eval().to(backend.device)
    fitting = FittingBatches(backend.device)
    most = choose_batch_size(config, backend.device)
    windows = [names[start : start + WINDOW] for start in range(0, len(names), WINDOW)]
    todo = [window for window in windows if any(name not in done for name in window)]

    sizes = [scale * config.predict_size for scale in parse_scales(config)]

    def prepare(image: DecodedImage) -> _Waiting | DecodedImage:
        if image.pixels is None:
            return image
        resized = [resize_shorter_side(image.pixels, size, segmenter.output_stride) for size in sizes]
        kept = _copy_to_host(image.pixels) if keep_pixels and image.name not in done else None
        return _Waiting(image.name, resized, tuple(image.pixels.shape[:2]), kept)

    prepared = decoded(todo, prepare)
    for window in todo:
        batches: dict[tuple[torch.Size, ...], list[_Waiting]] = defaultdict(list)
        for _ in window:
            image = next(prepared)
            if isinstance(image, DecodedImage):
                if image.name not in done:
                    yield Prediction(image.name, error=image.error)
                continue
            batch = batches[tuple(one.shape for one in image.images)]
            batch.append(image)
            if len(batch) == most:
                yield from _predict_batch(segmenter, batch, config.flip, precision, backend, fitting, done)
                batch.clear()
        for batch in batches.values():
            yield from _predict_batch(segmenter, batch, config.flip, precision, backend, fitting, done)


def choose_batch_size(config: PredictConfig, device: torch.device) -> int:
    """Return how many images of equal size share a batch, before memory is looked at."""
    return choose_batch_limit(config.predict_batch, device, on_gpu=WINDOW, on_cpu=4)


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


def resize_shorter_side(pixels: Image, shorter_side: float, output_stride: int) -> torch.Tensor:
    """Resize an image to a size that the network takes (`align_side`).

    Args:
        pixels: (H, W, 3) uint8.
        shorter_side: Of the result, roughly, in pixels; the longer side is at most 4 times that.
        output_stride: Of the network.

    Returns:
        (3, h, w) uint8, where `pixels` lies.
    """
    height, width = pixels.shape[:2]
    scale = shorter_side / min(height, width)
    size = [align_side(min(side * scale, 4 * shorter_side), output_stride) for side in (height, width)]
    return resize_planes(pixels, size)


def _copy_to_host(pixels: Image) -> np.ndarray:
    return pixels if isinstance(pixels, np.ndarray) else pixels.cpu().numpy()


@dataclass(frozen=True)
class _Waiting:
    """An image until its batch is full."""

    name: str
    images: list[torch.Tensor]  # (3, H, W) uint8 at each of the network's sizes
    size: tuple[int, int]  # its own height and width
    pixels: np.ndarray | None  # (H, W, 3) uint8, where they are kept


def _predict_batch(
    segmenter: Segmenter,
    batch: Sequence[_Waiting],
    flip: bool,
    precision: str,
    backend: Backend,
    fitting: FittingBatches,
    done: Collection[str],
) -> list[Prediction]:
    """Predictions of images of equal sizes that are not done; nothing is computed when all are."""
    wanted = [place for place, one in enumerate(batch) if one.name not in done]
    if not wanted:
        return []

    def logits_of(images: torch.Tensor) -> torch.Tensor:
        return _compute_coarse_logits(segmenter, move_to_device(images, backend.device), flip, precision)

    logits = [
        torch.cat(fitting.run(logits_of, torch.stack(images)))
        for images in zip(*(one.images for one in batch), strict=True)
    ]
    stride = segmenter.output_stride
    return [
        Prediction(batch[i].name, tuple(one[i] for one in logits), *batch[i].size, stride, pixels=batch[i].pixels)
        for i in wanted
    ]


@torch.inference_mode()
def _compute_coarse_logits(segmenter: Segmenter, images: torch.Tensor, flip: bool, precision: str) -> torch.Tensor:
    """Compute logits (B, C, h, w) of images (B, 3, H, W), averaged with those of their mirror images when `flip`."""
    with use_precision(images.device, precision), use_bf16_shortcuts(images.device, precision):
        logits: torch.Tensor = segmenter(torch.cat([images, images.flip(-1)]) if flip else images)
    return (logits[: len(images)] + logits[len(images) :].flip(-1)) / 2 if flip else logits


@torch.inference_mode()
def _enlarge_in_bands(
    logits: Sequence[torch.Tensor], height: int, width: int, output_stride: int
) -> Iterator[torch.Tensor]:
    """Enlarge logits (of several sizes: sum up their probabilities), a band (C, rows, width) of the image at a time.

    Bands keep memory from growing with the image.
    """
    down = [_build_interpolation(height, one.shape[1], output_stride, one.device) for one in logits]
    across = [_build_interpolation(width, one.shape[2], output_stride, one.device).T for one in logits]
    rows = max(1, _BAND_VALUES // (len(logits[0]) * width))
    for start in range(0, height, rows):
        enlarged = [
            torch.matmul(torch.matmul(rows_of[start : start + rows], one), columns_of)
            for one, rows_of, columns_of in zip(logits, down, across, strict=True)
        ]
        yield enlarged[0] if len(logits) == 1 else sum((one.softmax(0) for one in enlarged[1:]), enlarged[0].softmax(0))


def _build_interpolation(target: int, source: int, output_stride: int, device: torch.device) -> torch.Tensor:
    """Weights of the logits in each pixel, (target, source) float32, at most two of them not 0 in a row."""
    input_side = (source - 1) * output_stride + 1
    pixels = torch.arange(target, device=device)
    position = (((pixels.double() + 0.5) * (input_side / target) - 0.5) / output_stride).clamp(0, source - 1)
    first = position.long()
    matrix = torch.zeros(target, source, dtype=torch.float64, device=device)
    matrix[pixels, first] = 1 - (position - first)
    matrix[pixels, (first + 1).clamp(max=source - 1)] += position - first
    return matrix.float()
