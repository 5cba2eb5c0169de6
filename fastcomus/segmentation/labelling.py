"""Label images by a network while threads read the next ones and write finished results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from fastcomus.backends.decoded_images import decode_images
from fastcomus.backends.interface import Backend
from fastcomus.backends.read_ahead import AHEAD, read_ahead
from fastcomus.config import Config
from fastcomus.images.roots import ImageRoot
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.precision import choose_precision
from fastcomus.progress import show_progress
from fastcomus.segmentation.prediction import Prediction, choose_batch_size, predict
from fastcomus.segmentation.segmenter import Segmenter

Result = TypeVar("Result")


def label_images(
    segmenter: Segmenter,
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
        segmenter: The network; it is put into eval mode.
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
    segmenter = with_folded_batch_norms(segmenter.eval(), torch.uint8)
    with show_progress(task, len(names), "images", len(done)) as advance:
        for result in predict_and_write(segmenter, root, names, done, write, config, backend, workers):
            yield result
            advance(1)
            reach_safe_point()


def predict_and_write(
    segmenter: Segmenter,
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
