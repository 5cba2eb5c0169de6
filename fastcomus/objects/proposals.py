"""Image files to pixels and saliency maps (step 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from fastcomus.backends.interface import Backend, Image
from fastcomus.backends.read_ahead import DecodedImage, cut_into_batches, decode_image, decode_images, read_ahead
from fastcomus.backends.streams import mark_event
from fastcomus.config import EmbedConfig
from fastcomus.images.found import UnreadableImage
from fastcomus.images.roots import ImageRoot
from fastcomus.networks.compiled_batches import fill_up
from fastcomus.networks.fitting_batches import FittingBatches
from fastcomus.objects.saliency.proposer import NetworkProposer, Proposer


@dataclass(frozen=True)
class SeenImage:
    """An image and what was found in it.

    `name`: its name in the folder. `pixels`: (H, W, 3) uint8, or None where it cannot be read. `prepared`: the input of
    a saliency network. `maps`: (M, h, w), a saliency map or mask per object. `error`: why the image cannot be used.
    `ready`: on a GPU pixels and maps are complete once it has happened.
    """

    name: str
    pixels: Image | None = None
    prepared: torch.Tensor | None = None
    maps: np.ndarray | torch.Tensor | None = None
    error: UnreadableImage | None = None
    ready: torch.cuda.Event | None = None

    @property
    def pixel_count(self) -> int:
        """H x W; 0 without pixels."""
        return 0 if self.pixels is None else self.pixels.shape[0] * self.pixels.shape[1]


def propose_in_batches(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: Proposer | NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[list[SeenImage]]:
    """Read the images below `root` and compute their maps; `shards`: names of images, by shard.

    Yields:
        Images in order, in batches of the size that suits the backend's `find_objects`, none of two shards.
    """
    if callable(proposer):
        names = (name for shard in shards for name in shard)
        seen = read_ahead(make_single_proposer(root, proposer, config, backend), names, workers)
    else:
        seen = _propose_by_network(root, shards, config, proposer, backend, workers)
    return cut_into_batches(seen, [len(shard) for shard in shards], backend.images_at_once, backend.pixels_at_once)


def make_single_proposer(
    root: ImageRoot, proposer: Proposer, config: EmbedConfig, backend: Backend
) -> Callable[[str], SeenImage]:
    """Make a function, for several threads, that reads an image by name and finds its objects without a network."""

    def see(name: str) -> SeenImage:
        image = decode_image(root, name, config.max_pixels, backend)
        seen = SeenImage(name, image.pixels, error=image.error)
        if image.pixels is None:
            return seen
        try:
            return replace(seen, maps=proposer(name, np.asarray(image.pixels)))
        except UnreadableImage as error:  # for instance its mask
            return replace(seen, error=error)

    return see


def _propose_by_network(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[SeenImage]:
    """The images with their maps: worker threads read and prepare them, the network sees them in batches."""

    def prepare(image: DecodedImage) -> SeenImage:
        prepared = None if image.pixels is None else proposer.prepare(image.pixels)
        return SeenImage(image.name, image.pixels, prepared, error=image.error)

    images = decode_images(
        shards,
        prepare,
        root=root,
        max_pixels=config.max_pixels,
        backend=backend,
        workers=workers,
        on_host=proposer.needs_host_pixels,
    )
    sizes = [len(shard) for shard in shards]
    fitting = FittingBatches(backend.device)
    for batch in cut_into_batches(images, sizes, proposer.batch, backend.pixels_at_once):
        prepared = [image.prepared for image in batch if image.prepared is not None]
        found: Iterator[torch.Tensor] = iter(())
        if prepared:
            given = torch.stack(prepared)
            if config.compile:  # a compiled network takes batches of one size; the maps of the filling are not used
                given = fill_up(given, proposer.batch)
            found = chain.from_iterable(fitting.run(proposer.propose, given))
        ready = mark_event(backend.device)
        for image in batch:
            yield image if image.prepared is None else replace(image, prepared=None, maps=next(found), ready=ready)
