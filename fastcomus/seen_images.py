"""Images read and looked at: files to pixels and saliency maps (step 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from fastcomus.backends import Backend, Image
from fastcomus.config import EmbedConfig
from fastcomus.decoded_images import DecodedImage, batches_of, decoded_image, decoded_images
from fastcomus.fitting_batches import FittingBatches
from fastcomus.fixed_batches import filled_up
from fastcomus.image_roots import ImageRoot
from fastcomus.images import UnreadableImage
from fastcomus.read_ahead import read_ahead
from fastcomus.saliency import NetworkProposer, Proposer


@dataclass(frozen=True)
class SeenImage:
    """One image on its way: `pixels` (H, W, 3) uint8, or the reason why there are none. `prepared`: what a saliency
    network sees of it. `maps`: (M, h, w), what was found in it."""

    name: str
    pixels: Image | None = None
    prepared: torch.Tensor | None = None
    maps: np.ndarray | torch.Tensor | None = None
    error: UnreadableImage | None = None

    @property
    def pixel_count(self) -> int:
        return 0 if self.pixels is None else self.pixels.shape[0] * self.pixels.shape[1]


def seen_batches(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: Proposer | NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[list[SeenImage]]:
    """Every image of `shards` with its maps, in order, in batches as the backend's `find_objects` likes them."""
    if callable(proposer):
        names = (name for shard in shards for name in shard)
        seen = read_ahead(sees_alone(root, proposer, config, backend), names, workers)
    else:
        seen = _seen_by_network(root, shards, config, proposer, backend, workers)
    return batches_of(seen, [len(shard) for shard in shards], backend.images_at_once, backend.pixels_at_once)


def sees_alone(
    root: ImageRoot, proposer: Proposer, config: EmbedConfig, backend: Backend
) -> Callable[[str], SeenImage]:
    """What reads an image and finds its objects without a network; called from worker threads."""

    def see(name: str) -> SeenImage:
        image = decoded_image(root, name, config.max_pixels, backend)
        seen = SeenImage(name, image.pixels, error=image.error)
        if image.pixels is None:
            return seen
        try:
            return replace(seen, maps=proposer(name, np.asarray(image.pixels)))
        except UnreadableImage as error:  # its mask, for instance
            return replace(seen, error=error)

    return see


def _seen_by_network(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[SeenImage]:
    """Worker threads read images, the network sees them a batch at a time."""

    def prepared_image(image: DecodedImage) -> SeenImage:
        prepared = None if image.pixels is None else proposer.prepare(image.pixels)
        return SeenImage(image.name, image.pixels, prepared, error=image.error)

    images = decoded_images(
        shards,
        prepared_image,
        root=root,
        max_pixels=config.max_pixels,
        backend=backend,
        workers=workers,
        on_host=proposer.needs_host_pixels,
    )
    sizes = [len(shard) for shard in shards]
    fitting = FittingBatches(backend.device)
    for batch in batches_of(images, sizes, proposer.batch, backend.pixels_at_once):
        prepared = [image.prepared for image in batch if image.prepared is not None]
        found: Iterator[torch.Tensor] = iter(())
        if prepared:
            given = torch.stack(prepared)
            if config.compile:  # for batches of one size; what is found in the copies is left over
                given = filled_up(given, proposer.batch)
            found = chain.from_iterable(fitting.run(proposer.propose, given))
        for image in batch:
            yield image if image.prepared is None else replace(image, prepared=None, maps=next(found))
