"""`embed` as work for any engine: a piece is the names of a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastcomus.backends.interface import Backend
from fastcomus.config import EmbedConfig
from fastcomus.images.roots import ImageRoot, make_root_absolute
from fastcomus.networks.encoders import load_encoder
from fastcomus.objects.embedding import ObjectShard, embed_shards
from fastcomus.objects.saliency.methods import METHODS, load_proposer
from fastcomus.run.engines.work import Loaded, Stored

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ShardOfImages:
    """Shard `index` of the run folder, of the images `names`."""

    index: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class EmbeddedShard:
    """What `images` images gave."""

    index: int
    images: int
    shard: ObjectShard


@dataclass(frozen=True)
class EmbedWork:
    """Finding and embedding the objects of images under `root`."""

    root: ImageRoot
    config: EmbedConfig

    def load(self, backend: Backend, workers: int) -> Loaded[ShardOfImages, EmbeddedShard]:
        config = self.config
        proposer = load_proposer(config, backend.device)
        encoder = load_encoder(
            config.encoder, config.encoder_weights, config.crop_size, config.precision, backend.device
        )

        def embed(
            pieces: Sequence[ShardOfImages],
            then: Callable[[EmbeddedShard], Stored],
            on_images: Callable[[int], None],
        ) -> Iterator[Stored]:
            names = [piece.names for piece in pieces]
            shards = embed_shards(self.root, names, config, proposer, encoder, backend, workers, on_images)
            for piece, shard in zip(pieces, shards, strict=True):
                yield then(EmbeddedShard(piece.index, len(piece.names), shard))

        return embed


def make_embed_work(root: ImageRoot, config: EmbedConfig) -> EmbedWork:
    """With `root` and the files that `config` names under paths that hold in every folder."""
    saliency = config.saliency if config.saliency in METHODS else _make_absolute(config.saliency)
    masks, encoder_weights = _make_absolute(config.masks), _make_absolute(config.encoder_weights)
    return EmbedWork(
        make_root_absolute(root), replace(config, saliency=saliency, masks=masks, encoder_weights=encoder_weights)
    )


def _make_absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: images looked at, objects found, files without an object or that could not be used."""

    images: int
    objects: int
    skipped: int
