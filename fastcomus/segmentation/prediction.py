"""Label images by the trained segmenter, reading, labelling and writing at the same time (steps 10 and 11)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from fastcomus.backends.interface import Backend, Image
from fastcomus.backends.machine import move_to_device
from fastcomus.backends.read_ahead import AHEAD, DecodedImage, decode_images, read_ahead, resize_planes
from fastcomus.config import Config, PredictConfig
from fastcomus.images.roots import ImageRoot
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.cpu_shortcuts import use_cpu_shortcuts
from fastcomus.networks.fitting_batches import FittingBatches, choose_batch_limit
from fastcomus.networks.fixed_padding import align_side
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.progress import show_progress
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.labelling_network import AcceleratedSegmenter
from fastcomus.segmentation.segmenter import Segmenter
from fastcomus.settings import parse_scales

Result = TypeVar("Result")
Network: TypeAlias = Segmenter | AcceleratedSegmenter

WINDOW = 64  # neighbouring images that may share batches


def label_images(
    segmenter: Network,
    root: ImageRoot,
    names: Sequence[str],
    done: Collection[str],
    write: Callable[[Prediction], Result],
    config: Config,
    backend: Backend,
    workers: int,
    task: str,
) -> Iterator[Result]:
    """Label images with a progress bar, and let an interruption end the work after any image.

    Args:
        segmenter: The network, made ready by `prepare_segmenter`.
        root: Where the images lie.
        names: Names of the images under `root`.
        done: Names that need no labels any more.
        write: See `predict_and_write`.
        config: Settings of the run.
        backend: Where the network runs.
        workers: Number of threads that read, and of threads that write.
        task: Title of the progress bar.

    Yields:
        What `write` returned for each image.
    """
    with show_progress(task, len(names), "images", len(done)) as advance:
        for result in predict_and_write(segmenter, root, names, done, write, config, backend, workers):
            yield result
            advance(1)
            reach_safe_point()


def predict_and_write(
    segmenter: Network,
    root: ImageRoot,
    names: Sequence[str],
    done: Collection[str],
    write: Callable[[Prediction], Result],
    config: Config,
    backend: Backend,
    workers: int,
    keep_pixels: bool = False,
) -> Iterator[Result]:
    """Label images, reading, labelling and writing at the same time.

    Args:
        segmenter: The network.
        root: Where the images lie.
        names: Names of the images under `root`.
        done: Names that need no labels any more.
        write: Called with the prediction of every other image, by `workers` threads at once.
        config: Settings of the run.
        backend: Where the network runs.
        workers: Number of threads that read, and of threads that write.
        keep_pixels: Whether predictions carry the decoded pixels of their images; see `predict`.

    Yields:
        What `write` returned for each image.
    """
    # Pixels at full size take 36 MB of a photograph of 12 megapixels, so that no more than a batch of them waits.
    ahead = min(AHEAD, choose_batch_size(config.predict, backend.device)) if keep_pixels else AHEAD
    max_pixels = config.embed.max_pixels
    decoded = partial(decode_images, root=root, max_pixels=max_pixels, backend=backend, workers=workers, ahead=ahead)
    precision = choose_precision(config.train.precision, backend.device)
    predictions = predict(segmenter, names, decoded, config.predict, precision, backend, done, keep_pixels)
    return read_ahead(write, predictions, workers, ahead)


def predict(
    segmenter: Network,
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
    whole, and an interrupted prediction continues to the same bytes. On a CPU, each core computes a batch by itself:
    cores that share an operation wait for each other after each.

    Args:
        segmenter: The network; it is put into eval mode and onto the backend's device.
        names: Names of all images.
        decoded: From groups of names and a function, the function's result for each decoded image in order, as
            `decode_images` gives it.
        config: Sizes, batch size, whether mirror images are averaged in, and whether objects follow edges.
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

    def label(batch: list[_Waiting] | DecodedImage) -> list[Prediction]:
        if isinstance(batch, DecodedImage):
            return [Prediction(batch.name, error=batch.error)]
        return _predict_batch(segmenter, batch, config, precision, backend, fitting, done)

    batches = _fill_batches(segmenter, names, decoded, config, backend, done, keep_pixels)
    on_gpu = backend.device.type == "cuda"
    labelled = map(label, batches) if on_gpu else read_ahead(label, batches, torch.get_num_threads(), ahead=0)
    return chain.from_iterable(labelled)


def _fill_batches(
    segmenter: Network,
    names: Sequence[str],
    decoded: Callable[[Sequence[Sequence[str]], Callable[[DecodedImage], Any]], Iterator[Any]],
    config: PredictConfig,
    backend: Backend,
    done: Collection[str],
    keep_pixels: bool,
) -> Iterator[list[_Waiting] | DecodedImage]:
    """Yield the batches of `predict`, and unreadable images as they are."""
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
                    yield image
                continue
            shapes = tuple(one.shape for one in image.images)
            batches[shapes].append(image)
            if len(batches[shapes]) == most:
                yield batches.pop(shapes)
        yield from batches.values()


def choose_batch_size(config: PredictConfig, device: torch.device) -> int:
    """Return how many images of equal size share a batch, before memory is looked at."""
    return choose_batch_limit(config.predict_batch, device, on_gpu=WINDOW, on_cpu=1)


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
    segmenter: Network,
    batch: Sequence[_Waiting],
    config: PredictConfig,
    precision: str,
    backend: Backend,
    fitting: FittingBatches,
    done: Collection[str],
) -> list[Prediction]:
    """Predictions of images of equal sizes that are not done; nothing is computed when all are."""
    wanted = [place for place, one in enumerate(batch) if one.name not in done]
    if not wanted:
        return []

    logits = []
    for size, images in enumerate(zip(*(one.images for one in batch), strict=True)):

        def logits_of(images: torch.Tensor, is_mirrored: bool = size % 2 == 1) -> torch.Tensor:
            seen = move_to_device(images, backend.device)
            return _compute_coarse_logits(segmenter, seen, config.flip, is_mirrored, precision)

        logits.append(torch.cat(fitting.run(logits_of, torch.stack(images))))

    def choose_guide(images: list[torch.Tensor]) -> torch.Tensor | None:
        largest = max(images, key=torch.Tensor.numel)
        return move_to_device(largest, backend.device) if config.follow_edges else None

    stride = segmenter.output_stride
    return [
        Prediction(
            batch[i].name,
            tuple(one[i] for one in logits),
            *batch[i].size,
            stride,
            pixels=batch[i].pixels,
            guide=choose_guide(batch[i].images),
            region_weight=config.region_weight,
            least_part=config.least_part,
        )
        for i in wanted
    ]


@torch.inference_mode()
def _compute_coarse_logits(
    segmenter: Network, images: torch.Tensor, flip: bool, is_mirrored: bool, precision: str
) -> torch.Tensor:
    """Compute logits (B, C, h, w) of images (B, 3, H, W).

    They are averaged with those of the mirror images when `flip`. Else a size `is_mirrored` or not: the errors of two
    sizes agree less where one of them is, which is half of what mirroring both gains, for nothing.
    """
    seen = [images] if flip or not is_mirrored else []
    seen += [images.flip(-1)] if flip or is_mirrored else []
    with use_precision(images.device, precision), use_cpu_shortcuts(images.device):
        logits: torch.Tensor = segmenter(torch.cat(seen))
    if flip:
        return (logits[: len(images)] + logits[len(images) :].flip(-1)) / 2
    return logits.flip(-1) if is_mirrored else logits
