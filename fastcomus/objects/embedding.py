"""Stage 1: images to saliency, boxes, crops and embeddings, a row per object (steps 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from fastcomus.backends.interface import Backend, FoundObjects
from fastcomus.backends.read_ahead import AHEAD, read_ahead
from fastcomus.config import EmbedConfig
from fastcomus.images.found import LOST
from fastcomus.images.roots import ImageRoot
from fastcomus.networks.compiled_batches import FixedBatches, fill_up
from fastcomus.networks.encoders import Encoder
from fastcomus.networks.fitting_batches import FittingBatches, choose_batch_limit
from fastcomus.objects.proposals import SeenImage, make_single_proposer, propose_in_batches
from fastcomus.objects.saliency.proposer import NetworkProposer, Proposer
from fastcomus.store.embeddings import normalise_rows
from fastcomus.store.objects_table import SKIPPED_SCHEMA, make_object_schema


@dataclass(frozen=True)
class ObjectShard:
    """What a run of images gave. `objects`: `make_object_schema`. `skipped`: `SKIPPED_SCHEMA`."""

    objects: pa.Table
    skipped: pa.Table


@dataclass(frozen=True)
class _Proposal:
    """One image cut up: its objects as rows without embeddings, and their crops."""

    rows: list[dict]
    crops: torch.Tensor  # (M, 3, S, S) uint8
    skipped: list[dict]


def embed_shards(
    root: ImageRoot,
    shards: Iterable[Sequence[str]],
    config: EmbedConfig,
    proposer: Proposer | NetworkProposer,
    encoder: Encoder,
    backend: Backend,
    workers: int,
    on_images: Callable[[int], None],
) -> Iterator[ObjectShard]:
    """One ObjectShard per run of image names, in order, while worker threads prepare the next images.

    `on_images` is told of every image done. Images that cannot be used are listed in `skipped` with their reason.
    Memory is bounded by a few images per worker, a batch of crops and one shard of rows. Batches never straddle
    shards, so a shard's bytes do not depend on its neighbours.
    """
    shards = list(shards)
    proposals = _propose_objects(root, shards, config, proposer, backend, workers)
    collector = _Collector(config, encoder, backend.device)
    # NumPy's threads would only wait for those of the workers: a quarter of the processor's time.
    with threadpool_limits(1, user_api="blas"):
        for shard in shards:
            for _ in shard:
                collector.add(next(proposals))
                on_images(1)
            yield collector.finish()


class _Collector:
    """Gathers proposals of one shard, embeds them a batch at a time."""

    def __init__(self, config: EmbedConfig, encoder: Encoder, device: torch.device) -> None:
        self.config = config
        self.encoder = encoder
        self.encode: Callable[[torch.Tensor], torch.Tensor] = encoder
        self.batches = FittingBatches(device)
        self.batch = choose_batch_limit(config.embed_batch, device, on_gpu=256, on_cpu=32)
        if config.compile:
            self.encode = FixedBatches(encoder, self.batch, device)
        self._reset()

    def _reset(self) -> None:
        self.rows: list[dict] = []
        self.skipped: list[dict] = []
        self.crops: list[torch.Tensor] = []
        self.embeddings: list[torch.Tensor] = []  # a batch each, on the device until all are there: nobody waits for it

    def add(self, proposal: _Proposal) -> None:
        self.rows += proposal.rows
        self.skipped += proposal.skipped
        self.crops += [crop[None] for crop in proposal.crops]
        while len(self.crops) >= self.batch:
            self._embed(self.batch)

    def finish(self) -> ObjectShard:
        if self.crops:
            self._embed(len(self.crops))
        dimension = self.encoder.dimension
        rows = [batch.cpu().numpy() for batch in self.embeddings]
        if self.config.normalize:
            rows = [normalise_rows(batch) for batch in rows]
        embeddings = np.concatenate([np.empty((0, dimension), np.float32), *rows])
        schema = make_object_schema(dimension)
        columns = {name: [row[name] for row in self.rows] for name in schema.names if name != "embedding"}
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), dimension)
        objects = pa.table({**columns, "embedding": embedding}, schema=schema)
        skipped = pa.Table.from_pylist(self.skipped, schema=SKIPPED_SCHEMA)
        self._reset()
        return ObjectShard(objects, skipped)

    def _embed(self, count: int) -> None:
        batch, self.crops = self.crops[:count], self.crops[count:]
        crops = torch.cat(batch)
        if self.config.compile:
            crops = fill_up(crops, self.batch)
        self.embeddings.append(torch.cat(self.batches.run(self.encode, crops))[:count])


def _propose_objects(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: Proposer | NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[_Proposal]:
    """Image -> saliency -> boxes -> crops, of every image in order."""

    def cut_out(batch: list[SeenImage]) -> list[_Proposal]:
        return _cut_out(batch, config, backend)

    if callable(proposer) and backend.images_at_once == 1:  # file to crops in one worker thread: few images are held
        see = make_single_proposer(root, proposer, config, backend)
        names = (name for shard in shards for name in shard)
        return chain.from_iterable(read_ahead(lambda name: cut_out([see(name)]), names, workers))
    batches = propose_in_batches(root, shards, config, proposer, backend, workers)
    # What waits is bounded in images, and one thread is enough to wait for a device.
    threads = workers if backend.images_at_once == 1 else 1
    return chain.from_iterable(read_ahead(cut_out, batches, threads, AHEAD // backend.images_at_once))


def _cut_out(batch: Sequence[SeenImage], config: EmbedConfig, backend: Backend) -> list[_Proposal]:
    """The objects of every image, by its maps; runs in a worker thread."""
    usable = [image for image in batch if image.error is None]
    pixels = [image.pixels for image in usable if image.pixels is not None]
    maps = [image.maps for image in usable if image.maps is not None]
    found = iter(backend.find_objects(pixels, maps, config.theta, config.min_area, config.crop_size) if usable else [])
    return [_make_proposal(image, next(found) if image.error is None else None, config) for image in batch]


def _make_proposal(image: SeenImage, found: FoundObjects | None, config: EmbedConfig) -> _Proposal:
    """`found`: None where the image cannot be used."""
    height, width = (0, 0) if image.pixels is None else image.pixels.shape[:2]

    def skipped(reason: str, detail: str) -> _Proposal:
        row = {"image": image.name, "reason": reason, "detail": detail, "width": width, "height": height}
        return _Proposal([], torch.empty(0), [row])

    if image.error is not None:
        return skipped(image.error.reason, image.error.detail)
    assert found is not None
    if not len(found.boxes):
        if found.too_small:
            return skipped("smaller than min_area", f"no object of {config.min_area} px or more")
        return skipped("no salient region", "")
    rows = [
        {
            "image": image.name,
            "width": width,
            "height": height,
            **dict(zip(("x0", "y0", "x1", "y1"), box.tolist(), strict=True)),
            "area": int(area),
            "score": float(score),
            "mask": run_lengths,
        }
        for box, area, score, run_lengths in zip(found.boxes, found.areas, found.scores, found.run_lengths, strict=True)
    ]
    return _Proposal(rows, found.crops, [])


def list_lost_images(skipped: pa.Table) -> list[str]:
    """Those of `SKIPPED_SCHEMA` that were there when the folder was listed and gone when they were to be read."""
    return [row["image"] for row in skipped.select(["image", "reason"]).to_pylist() if row["reason"] == LOST]
