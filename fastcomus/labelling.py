"""Images labelled by a network while threads read what comes next and write what is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from fastcomus.backends import Backend
from fastcomus.config import Config
from fastcomus.decoded_images import decoded_images
from fastcomus.encoders import chosen_precision
from fastcomus.folded_batch_norm import with_folded_batch_norms
from fastcomus.image_roots import ImageRoot
from fastcomus.interruption import safe_point
from fastcomus.prediction import Prediction, predict
from fastcomus.progress import progress_bar
from fastcomus.read_ahead import read_ahead
from fastcomus.segmenter import Segmenter

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
    """`labelled` with a progress bar, and a safe point behind every image."""
    segmenter = with_folded_batch_norms(segmenter.eval(), torch.uint8)
    with progress_bar(task, len(names), "images", len(done)) as advance:
        for result in labelled(segmenter, root, names, done, write, config, backend, workers):
            yield result
            advance(1)
            safe_point()


def labelled(
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
    decoded = partial(decoded_images, root=root, max_pixels=config.embed.max_pixels, backend=backend, workers=workers)
    precision = chosen_precision(config.train.precision, backend.device)
    return read_ahead(write, predict(segmenter, names, decoded, config.predict, precision, backend, done), workers)
