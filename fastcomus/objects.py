"""Stage 1: images to saliency, boxes, crops and embeddings, a row per object (steps 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pycocotools import mask as coco_mask

from fastcomus.backends import Backend, FoundObjects, Image
from fastcomus.config import EmbedConfig
from fastcomus.embeddings import unit_rows
from fastcomus.encoders import Encoder
from fastcomus.fitting_batches import FittingBatches, batch_limit
from fastcomus.images import LOST, UnreadableImage
from fastcomus.read_ahead import AHEAD, read_ahead
from fastcomus.saliency import NetworkProposer, Proposer

SKIPPED_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("width", pa.int32()),  # 0 where the image could not be read
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class ObjectShard:
    """What a run of images gave. `objects`: `object_schema`. `skipped`: `SKIPPED_SCHEMA`."""

    objects: pa.Table
    skipped: pa.Table


@dataclass(frozen=True)
class _Seen:
    """One image on its way: `pixels` (H, W, 3) uint8, or the reason why there are none. `prepared`: what a saliency
    network sees of it. `maps`: (M, h, w), what was found in it."""

    name: str
    pixels: Image | None = None
    prepared: torch.Tensor | None = None
    maps: np.ndarray | torch.Tensor | None = None
    error: UnreadableImage | None = None


@dataclass(frozen=True)
class _Proposal:
    """One image cut up: its objects as rows without embeddings, and their crops."""

    rows: list[dict]
    crops: torch.Tensor  # (M, 3, S, S) uint8
    skipped: list[dict]


def object_schema(dimension: int) -> pa.Schema:
    """Columns of `objects/part-*.parquet`: boxes in pixels, half-open; `mask` COCO run lengths at image size."""
    pixels = [(name, pa.int32()) for name in ("width", "height", "x0", "y0", "x1", "y1", "area")]
    return pa.schema(
        [
            ("image", pa.string()),
            *pixels,
            ("score", pa.float32()),
            ("mask", pa.string()),
            ("embedding", pa.list_(pa.float32(), dimension)),
        ]
    )


def embed_shards(
    root: Path,
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
    proposals = _proposals(root, shards, config, proposer, backend, workers)
    collector = _Collector(config, encoder, backend.device)
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
        self.batches = FittingBatches(device)
        self.batch = batch_limit(config.embed_batch, device, on_gpu=256, on_cpu=32)
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
            rows = [unit_rows(batch) for batch in rows]
        embeddings = np.concatenate([np.empty((0, dimension), np.float32), *rows])
        schema = object_schema(dimension)
        columns = {name: [row[name] for row in self.rows] for name in schema.names if name != "embedding"}
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), dimension)
        objects = pa.table({**columns, "embedding": embedding}, schema=schema)
        skipped = pa.Table.from_pylist(self.skipped, schema=SKIPPED_SCHEMA)
        self._reset()
        return ObjectShard(objects, skipped)

    def _embed(self, count: int) -> None:
        batch, self.crops = self.crops[:count], self.crops[count:]
        self.embeddings.append(torch.cat(self.batches.run(self.encoder, torch.cat(batch))))


def _proposals(
    root: Path,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: Proposer | NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[_Proposal]:
    """Image -> saliency -> boxes -> crops, of every image in order."""

    def cut_out(batch: list[_Seen]) -> list[_Proposal]:
        return _cut_out(batch, config, backend)

    sizes = [len(shard) for shard in shards]
    if callable(proposer):
        see = _sees_alone(root, proposer, config, backend)
        names = (name for shard in shards for name in shard)
        if backend.images_at_once == 1:  # from file to crops in one worker thread: few images are held
            return chain.from_iterable(read_ahead(lambda name: cut_out([see(name)]), names, workers))
        seen = read_ahead(see, names, workers)
    else:
        seen = _seen_by_network(root, shards, config, proposer, backend, workers)
    batches = _batches(seen, sizes, backend.images_at_once, backend.pixels_at_once)
    # What waits is bounded in images, and one thread is enough to wait for a device.
    threads = workers if backend.images_at_once == 1 else 1
    return chain.from_iterable(read_ahead(cut_out, batches, threads, AHEAD // backend.images_at_once))


def _sees_alone(root: Path, proposer: Proposer, config: EmbedConfig, backend: Backend) -> Callable[[str], _Seen]:
    """What reads an image and finds its objects without a network; called from worker threads."""

    def see(name: str) -> _Seen:
        image = _decoded(root, name, config, backend)
        if image.pixels is None:
            return image
        try:
            return replace(image, maps=proposer(name, np.asarray(image.pixels)))
        except UnreadableImage as error:  # its mask, for instance
            return replace(image, error=error)

    return see


def _seen_by_network(
    root: Path,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[_Seen]:
    """Worker threads read images, the network sees them a batch at a time."""

    def read(name: str) -> _Seen:
        image = _decoded(root, name, config, backend)
        return image if image.pixels is None else replace(image, prepared=proposer.prepare(image.pixels))

    fitting = FittingBatches(backend.device)
    images = read_ahead(read, (name for shard in shards for name in shard), workers)
    for batch in _batches(images, [len(shard) for shard in shards], proposer.batch, backend.pixels_at_once):
        prepared = [image.prepared for image in batch if image.prepared is not None]
        parts = fitting.run(proposer.propose, torch.stack(prepared)) if prepared else []
        found = chain.from_iterable(parts)
        yield from (image if image.prepared is None else replace(image, maps=next(found)) for image in batch)


def _batches(images: Iterator[_Seen], shards: Sequence[int], most: int, most_pixels: int) -> Iterator[list[_Seen]]:
    """Runs of up to `most` images and, unless one has more, `most_pixels`; none leaves its shard. `shards`: sizes."""
    for size in shards:
        batch: list[_Seen] = []
        pixels = 0
        for _ in range(size):
            image = next(images)
            own = 0 if image.pixels is None else image.pixels.shape[0] * image.pixels.shape[1]
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


def _decoded(root: Path, name: str, config: EmbedConfig, backend: Backend) -> _Seen:
    """Read an image; runs in a worker thread and never raises for a bad one."""
    try:
        return _Seen(name, backend.decode(str(root / name), config.max_pixels))
    except UnreadableImage as error:
        return _Seen(name, error=error)


def _cut_out(batch: Sequence[_Seen], config: EmbedConfig, backend: Backend) -> list[_Proposal]:
    """The objects of every image, by its maps; runs in a worker thread."""
    usable = [image for image in batch if image.error is None]
    pixels = [image.pixels for image in usable if image.pixels is not None]
    maps = [image.maps for image in usable if image.maps is not None]
    found = iter(backend.find_objects(pixels, maps, config.theta, config.min_area, config.crop_size) if usable else [])
    return [_proposal(image, next(found) if image.error is None else None, config) for image in batch]


def _proposal(image: _Seen, found: FoundObjects | None, config: EmbedConfig) -> _Proposal:
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


def lost_images(skipped: pa.Table) -> list[str]:
    """Those of `SKIPPED_SCHEMA` that were there when the folder was listed and gone when they were to be read."""
    return [row["image"] for row in skipped.select(["image", "reason"]).to_pylist() if row["reason"] == LOST]


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """(H, W) bool from the `mask` column."""
    return coco_mask.decode({"size": [height, width], "counts": counts.encode("ascii")}).astype(bool)
