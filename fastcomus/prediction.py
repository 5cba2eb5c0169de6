"""Images to class maps by the trained segmenter (steps 10 and 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

from fastcomus.backends import Backend
from fastcomus.config import PredictConfig, prediction_scales
from fastcomus.encoders import autocast
from fastcomus.images import UnreadableImage
from fastcomus.read_ahead import read_ahead
from fastcomus.segmenter import Segmenter, aligned_side

_BAND_VALUES = 2**25  # logits held at once while enlarging: 128 MiB of float32, whatever the image's size


@dataclass(frozen=True)
class Prediction:
    """One image: `labels` (H, W) uint16 at the image's own size, or None with `error` where it could not be read."""

    image: str
    labels: np.ndarray | None
    error: UnreadableImage | None = None


def predict(
    segmenter: Segmenter,
    names: Sequence[str],
    read: Callable[[str], np.ndarray],
    config: PredictConfig,
    precision: str,
    backend: Backend,
    workers: int,
) -> Iterator[Prediction]:
    """A Prediction per name, in order; `read(name)` gives pixels (H, W, 3) uint8 and runs ahead in threads."""
    segmenter.eval().to(backend.device)

    def prepare(name: str) -> tuple[list[torch.Tensor], tuple[int, int]] | UnreadableImage:
        try:
            pixels = read(name)
        except UnreadableImage as error:
            return error
        sizes = [scale * config.predict_size for scale in prediction_scales(config)]
        return [_resized(pixels, size, segmenter.output_stride) for size in sizes], pixels.shape[:2]

    for name, ready in zip(names, read_ahead(prepare, names, workers), strict=True):
        if isinstance(ready, UnreadableImage):
            yield Prediction(name, None, ready)
            continue
        images, (height, width) = ready
        logits = [_coarse_logits(segmenter, one.to(backend.device), config.flip, precision) for one in images]
        yield Prediction(name, enlarged_argmax(logits, height, width, segmenter.output_stride).numpy())


def enlarged_argmax(logits: Sequence[torch.Tensor], height: int, width: int, output_stride: int) -> torch.Tensor:
    """Every one of `logits` (C, h, w) enlarged bilinearly to (C, height, width), then argmax: (height, width) uint16.

    Several (the same image at several sizes) are averaged as probabilities. Logit i belongs to pixel i * output_stride
    of the network's input, which is the image resized. One with an output stride of 1 is
    `interpolate(..., mode="bilinear", align_corners=False).argmax(0)`. A band of rows is done at a time, so that
    memory does not grow with the image; the result lies on the CPU.
    """
    down = [_source_positions(height, one.shape[1], output_stride, one.device) for one in logits]
    across = [_source_positions(width, one.shape[2], output_stride, one.device) for one in logits]
    rows = max(1, _BAND_VALUES // (len(logits) * len(logits[0]) * width))
    bands = []
    for start in range(0, height, rows):
        band = slice(start, start + rows)
        enlarged = []
        for one, (y0, y1, fy), (x0, x1, fx) in zip(logits, down, across, strict=True):
            tall = torch.lerp(one[:, y0[band]], one[:, y1[band]], fy[band][:, None])
            enlarged.append(torch.lerp(tall[:, :, x0], tall[:, :, x1], fx))
        scores = enlarged[0] if len(logits) == 1 else torch.stack([one.softmax(0) for one in enlarged]).mean(0)
        bands.append(scores.argmax(0).to(torch.int32).cpu())
    return torch.cat(bands).to(torch.uint16)


@torch.inference_mode()
def _coarse_logits(segmenter: Segmenter, image: torch.Tensor, flip: bool, precision: str) -> torch.Tensor:
    """(C, h, w) logits of one image (3, H, W), averaged with those of its mirror image when `flip`."""
    batch = torch.stack([image, image.flip(-1)]) if flip else image[None]
    with autocast(image.device, precision):
        logits = segmenter.coarse_logits(batch)
    return (logits[0] + logits[1].flip(-1)) / 2 if flip else logits[0]


def _resized(pixels: np.ndarray, shorter_side: float, output_stride: int) -> torch.Tensor:
    """(3, H, W) uint8, the shorter side near `shorter_side`, the longer at most 4 times that, both aligned."""
    height, width = pixels.shape[:2]
    scale = shorter_side / min(height, width)
    size = [aligned_side(min(side * scale, 4 * shorter_side), output_stride) for side in (height, width)]
    planes = torch.from_numpy(np.require(pixels, requirements="W")).permute(2, 0, 1)[None]
    return transforms.resize(planes, size, antialias=True)[0]


def _source_positions(
    target: int, source: int, output_stride: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of `target` pixels: the two logits around it and the weight of the second."""
    input_side = (source - 1) * output_stride + 1
    pixels = torch.arange(target, device=device, dtype=torch.float64)
    position = (((pixels + 0.5) * (input_side / target) - 0.5) / output_stride).clamp(0, source - 1)
    first = position.long()
    return first, (first + 1).clamp(max=source - 1), (position - first).float()
