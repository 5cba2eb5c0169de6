"""Images to objects: saliency, boxes, crops and embeddings, a row per object (steps 1 to 3; the paper's 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from fastcomus.backends.interface import Backend, FoundObjects
from fastcomus.backends.read_ahead import AHEAD, read_ahead
from fastcomus.backends.streams import run_on_own_stream
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
    """The rows of consecutive images: `objects` as in `make_object_schema`, `skipped` as in `SKIPPED_SCHEMA`."""

    objects: pa.Table
    skipped: pa.Table


@dataclass(frozen=True)
class _Proposal:
    """The M objects of one image: rows without embeddings, and crops."""

    rows: list[dict[str, Any]]
    crops: torch.Tensor  # (M, 3, S, S) uint8
    skipped: list[dict[str, Any]]


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
    """Find and embed the objects of images, while worker threads prepare the next images.

    Memory is bounded by a few images per worker, a batch of crops and one shard of rows. No batch holds crops of two
    shards, so the bytes of a shard do not depend on other shards. `shards`: names of images below `root`, by shard;
    `on_images` is called with the number of images done since the last call.

    Yields:
        The rows of each shard, in order. Images that cannot be used are in `skipped` with the reason.
    """
    shards = list(shards)
    proposals = _propose_objects(root, shards, config, proposer, backend, workers)
    collector = _Collector(config, encoder, backend.device)
    # Without the limit NumPy's threads compete with the workers', which costs a quarter of the processor's time.
    with threadpool_limits(1, user_api="blas"):
        for shard in shards:
            for _ in shard:
                collector.add(next(proposals))
                on_images(1)
            yield collector.finish()


def list_lost_images(skipped: pa.Table) -> list[str]:
    """Return the images of a table of `SKIPPED_SCHEMA` that vanished between the listing and the reading."""
    return [row["image"] for row in skipped.select(["image", "reason"]).to_pylist() if row["reason"] == LOST]


class _Collector:
    """Collects the proposals of a shard and embeds their crops in batches."""

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
        self.rows: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.crops: list[torch.Tensor] = []
        self.embeddings: list[
            torch.Tensor
        ] = []  # by batch; left on the device until `finish`, so as not to wait for it

    def add(self, proposal: _Proposal) -> None:
        """Add an image, and embed as many full batches as there are."""
        self.rows += proposal.rows
        self.skipped += proposal.skipped
        self.crops += [crop[None] for crop in proposal.crops]
        while len(self.crops) >= self.batch:
            self._embed(self.batch)

    def finish(self) -> ObjectShard:
        """Embed the objects that still wait and return the finished shard; the next image starts a new one."""
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
    """Saliency, boxes and crops of every image, in order."""

    def cut_out(batch: list[SeenImage]) -> list[_Proposal]:
        return _cut_out(batch, config, backend)

    if (
        callable(proposer) and backend.images_at_once == 1
    ):  # one thread takes an image all the way, so few are in memory
        see = make_single_proposer(root, proposer, config, backend)
        names = (name for shard in shards for name in shard)
        return chain.from_iterable(read_ahead(lambda name: cut_out([see(name)]), names, workers))
    batches = propose_in_batches(root, shards, config, proposer, backend, workers)
    # The queue is bounded in images, not in batches; one thread suffices to wait for a device.
    threads = workers if backend.images_at_once == 1 else 1
    return chain.from_iterable(read_ahead(cut_out, batches, threads, AHEAD // backend.images_at_once))


def _cut_out(batch: Sequence[SeenImage], config: EmbedConfig, backend: Backend) -> list[_Proposal]:
    """The objects of every image of a batch; called from worker threads."""
    usable = [image for image in batch if image.error is None]
    pixels = [image.pixels for image in usable if image.pixels is not None]
    maps = [image.maps for image in usable if image.maps is not None]
    found: Iterator[FoundObjects] = iter(())
    if usable:  # not behind the next batch, which the main thread has launched meanwhile
        found = iter(
            run_on_own_stream(
                backend.device,
                [image.ready for image in usable],
                lambda: backend.find_objects(pixels, maps, config.theta, config.min_area, config.crop_size),
                lambda objects: [one.crops for one in objects],
            )
        )
    return [_make_proposal(image, next(found) if image.error is None else None, config) for image in batch]


def _make_proposal(image: SeenImage, found: FoundObjects | None, config: EmbedConfig) -> _Proposal:
    """`found` is None where the image cannot be used."""
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
