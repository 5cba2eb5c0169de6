"""`embed` as work for any engine: a piece is the names of a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastcomus.backends import Backend
from fastcomus.config import EmbedConfig
from fastcomus.encoders import load_encoder
from fastcomus.engines import Loaded, Stored
from fastcomus.image_roots import ImageRoot, absolute_root
from fastcomus.objects import ObjectShard, embed_shards
from fastcomus.saliency import METHODS, load_proposer


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


def embed_work(root: ImageRoot, config: EmbedConfig) -> EmbedWork:
    """With `root` and the files that `config` names under paths that hold in every folder."""
    saliency = config.saliency if config.saliency in METHODS else _absolute(config.saliency)
    masks, encoder_weights = _absolute(config.masks), _absolute(config.encoder_weights)
    return EmbedWork(
        absolute_root(root), replace(config, saliency=saliency, masks=masks, encoder_weights=encoder_weights)
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
