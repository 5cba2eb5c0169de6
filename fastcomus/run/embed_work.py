"""What `embed` does with its images, cut into shards that any engine can take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcomus.config import EmbedConfig
from fastcomus.images.found import ImageList
from fastcomus.images.mask_files import MaskFiles
from fastcomus.images.roots import ImageRoot, make_root_absolute
from fastcomus.images.stamps import stamp_file, stamp_images
from fastcomus.networks.registry import FOUND_DECODER, FOUND_ENCODER
from fastcomus.objects.saliency.methods import METHODS, load_proposer
from fastcomus.run.engines.work import Loaded, Stored
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend
    from fastcomus.objects.embedding import ObjectShard


@dataclass(frozen=True)
class ShardOfImages:
    """Part `index` of the objects: the images `names`, and a fingerprint of them and the settings."""

    index: int
    names: tuple[str, ...]
    fingerprint: str = ""


@dataclass(frozen=True)
class EmbeddedShard:
    """The objects of part `index`, which has `images` images."""

    index: int
    images: int
    shard: ObjectShard


@dataclass(frozen=True)
class EmbedWork:
    """Finding and embedding the objects of images under `root`, small enough to be sent to another process."""

    root: ImageRoot
    config: EmbedConfig
    inference: str = "torch"

    def load(self, backend: Backend, workers: int) -> Loaded[ShardOfImages, EmbeddedShard]:
        """See `engines.work.Work.load`."""
        from fastcomus.networks.encoders import load_encoder
        from fastcomus.objects.embedding import embed_shards

        config = self.config
        proposer = load_proposer(config, backend.device)
        encoder = load_encoder(
            config.encoder,
            config.encoder_weights,
            config.crop_size,
            config.precision,
            backend.device,
            self.inference,
        )

        def embed_pieces(
            pieces: Sequence[ShardOfImages],
            then: Callable[[EmbeddedShard], Stored],
            on_images: Callable[[int], None],
        ) -> Iterator[Stored]:
            names = [piece.names for piece in pieces]
            shards = embed_shards(self.root, names, config, proposer, encoder, backend, workers, on_images)
            for piece, shard in zip(pieces, shards, strict=True):
                yield then(EmbeddedShard(piece.index, len(piece.names), shard))

        return embed_pieces


def make_embed_work(root: ImageRoot, config: EmbedConfig, inference: str = "torch") -> EmbedWork:
    """Return the work with all paths absolute, so that they hold in every process."""
    saliency = config.saliency if config.saliency in METHODS else _make_absolute(config.saliency)
    masks, encoder_weights = _make_absolute(config.masks), _make_absolute(config.encoder_weights)
    return EmbedWork(
        make_root_absolute(root),
        dataclasses.replace(config, saliency=saliency, masks=masks, encoder_weights=encoder_weights),
        inference,
    )


def cut_into_shards(found: ImageList, config: EmbedConfig) -> list[ShardOfImages]:
    """Cut the images into shards, each with the fingerprint of its images, the settings and the files they name."""
    masks = MaskFiles(Path(config.masks)) if config.masks and Path(config.masks).is_dir() else None
    own_files = (config.saliency, config.encoder_weights, config.masks)
    files = [Path(name) for name in own_files if Path(name).is_file()]
    checkpoints = [stamp_file(file) for file in files]
    size, shards = config.shard_images, []
    settings = asdict(config)
    del settings["every_seconds"]  # names say which frames of a video there are
    if not settings["map_edges"]:  # which versions before did not know
        del settings["map_edges"]
    if config.saliency == FOUND_DECODER and not config.masks:  # before, it looked at the network of the encoder
        settings["found_on"] = FOUND_ENCODER
    for index, start in enumerate(range(0, len(found.names), size)):
        names = found.names[start : start + size]
        stamps = stamp_images(found, names, masks)
        mark = compute_fingerprint(config=settings, checkpoints=checkpoints, images=stamps)
        shards.append(ShardOfImages(index, names, mark))
    return shards


def _make_absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
