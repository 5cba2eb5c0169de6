"""Images read and looked at: files to pixels and saliency maps (step 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch

from fastcomus.backends import Backend, BatchDecoder, EncodedImage, Image
from fastcomus.config import EmbedConfig
from fastcomus.fitting_batches import FittingBatches
from fastcomus.fixed_batches import filled_up
from fastcomus.image_roots import ImageRoot
from fastcomus.images import UnreadableImage
from fastcomus.read_ahead import AHEAD, read_ahead
from fastcomus.saliency import NetworkProposer, Proposer


@dataclass(frozen=True)
class SeenImage:
    """One image on its way: `pixels` (H, W, 3) uint8, or the reason why there are none. `file`: what they are decoded
    from on a device. `prepared`: what a saliency network sees of it. `maps`: (M, h, w), what was found in it."""

    name: str
    file: EncodedImage | np.ndarray | None = None
    pixels: Image | None = None
    prepared: torch.Tensor | None = None
    maps: np.ndarray | torch.Tensor | None = None
    error: UnreadableImage | None = None


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
    return _batches(seen, [len(shard) for shard in shards], backend.images_at_once, backend.pixels_at_once)


def sees_alone(
    root: ImageRoot, proposer: Proposer, config: EmbedConfig, backend: Backend
) -> Callable[[str], SeenImage]:
    """What reads an image and finds its objects without a network; called from worker threads."""

    def see(name: str) -> SeenImage:
        image = _decoded(root, name, config, backend)
        if image.pixels is None:
            return image
        try:
            return replace(image, maps=proposer(name, np.asarray(image.pixels)))
        except UnreadableImage as error:  # its mask, for instance
            return replace(image, error=error)

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
    sizes = [len(shard) for shard in shards]
    names = (name for shard in shards for name in shard)
    decoder = None if proposer.needs_host_pixels else backend.batch_decoder

    def prepared_image(image: SeenImage) -> SeenImage:
        return image if image.pixels is None else replace(image, prepared=proposer.prepare(image.pixels))

    def decode(batch: list[SeenImage]) -> list[SeenImage]:
        assert decoder is not None
        return [prepared_image(image) for image in _decoded_batch(batch, decoder)]

    if decoder is None:
        images = read_ahead(lambda name: prepared_image(_decoded(root, name, config, backend)), names, workers)
    else:
        files = read_ahead(lambda name: _file(root, name, config, decoder), names, workers)
        file_batches = _batches(files, sizes, backend.images_at_once, backend.pixels_at_once)
        images = chain.from_iterable(read_ahead(decode, file_batches, 1, AHEAD // backend.images_at_once))
    fitting = FittingBatches(backend.device)
    for batch in _batches(images, sizes, proposer.batch, backend.pixels_at_once):
        prepared = [image.prepared for image in batch if image.prepared is not None]
        found: Iterator[torch.Tensor] = iter(())
        if prepared:
            given = torch.stack(prepared)
            if config.compile:  # for batches of one size; what is found in the copies is left over
                given = filled_up(given, proposer.batch)
            found = chain.from_iterable(fitting.run(proposer.propose, given))
        for image in batch:
            yield image if image.prepared is None else replace(image, prepared=None, maps=next(found))


def _batches(
    images: Iterator[SeenImage], shards: Sequence[int], most: int, most_pixels: int
) -> Iterator[list[SeenImage]]:
    """Runs of up to `most` images and, unless one has more, `most_pixels`; none leaves its shard. `shards`: sizes."""
    for size in shards:
        batch: list[SeenImage] = []
        pixels = 0
        for _ in range(size):
            image = next(images)
            known = image.file if image.pixels is None else image.pixels
            own = 0 if known is None else known.shape[0] * known.shape[1]
            if batch and pixels + own > most_pixels:
                yield batch
                batch, pixels = [], 0
            batch.append(image)
            pixels += own
            if len(batch) == most:
                yield batch
                batch, pixels = [], 0
        if batch:
            yield batch


def _decoded(root: ImageRoot, name: str, config: EmbedConfig, backend: Backend) -> SeenImage:
    """Read an image; runs in a worker thread and never raises for a bad one."""
    try:
        return SeenImage(name, pixels=backend.decode(root / name, config.max_pixels))
    except UnreadableImage as error:
        return SeenImage(name, error=error)


def _file(root: ImageRoot, name: str, config: EmbedConfig, decoder: BatchDecoder) -> SeenImage:
    """The same for a device to decode."""
    try:
        return SeenImage(name, file=decoder.read(root / name, config.max_pixels))
    except UnreadableImage as error:
        return SeenImage(name, error=error)


def _decoded_batch(batch: Sequence[SeenImage], decoder: BatchDecoder) -> list[SeenImage]:
    decoded = iter(decoder.decode([image.file for image in batch if image.file is not None]))
    images = []
    for image in batch:
        pixels = None if image.file is None else next(decoded)
        if isinstance(pixels, UnreadableImage):
            images.append(replace(image, file=None, error=pixels))
        else:
            images.append(replace(image, file=None, pixels=pixels))
    return images
