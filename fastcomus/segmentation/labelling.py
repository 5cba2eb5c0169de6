"""Images labelled by a network while threads read what comes next and write what is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from fastcomus.backends.decoded_images import decode_images
from fastcomus.backends.interface import Backend
from fastcomus.backends.read_ahead import read_ahead
from fastcomus.config import Config
from fastcomus.images.roots import ImageRoot
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.precision import choose_precision
from fastcomus.progress import show_progress
from fastcomus.segmentation.prediction import Prediction, predict
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
    """`predict_and_write` with a progress bar, and a safe point behind every image."""
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
) -> Iterator[Result]:
    """`write(prediction)` of every image of `names` under `root` that is not among the `done`.

    `write` is called by `workers` threads, and as many others read images, while the network goes on.
    """
    decoded = partial(decode_images, root=root, max_pixels=config.embed.max_pixels, backend=backend, workers=workers)
    precision = choose_precision(config.train.precision, backend.device)
    return read_ahead(write, predict(segmenter, names, decoded, config.predict, precision, backend, done), workers)
