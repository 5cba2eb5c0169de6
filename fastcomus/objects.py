"""Stage 1: images to saliency, boxes, crops and embeddings, a row per object (steps 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from pycocotools import mask as coco_mask

from fastcomus.backends import Backend
from fastcomus.config import EmbedConfig
from fastcomus.embeddings import unit_rows
from fastcomus.encoders import Encoder
from fastcomus.fitting_batches import FittingBatches, batch_limit
from fastcomus.image_roots import ImageRoot
from fastcomus.images import LOST, UnreadableImage
from fastcomus.read_ahead import read_ahead
from fastcomus.saliency import NetworkProposer, Proposer, enlarged_maps

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
class _Decoded:
    """One image as it was read: `pixels` (H, W, 3) uint8, or the reason why not. `prepared`: what a saliency network
    sees of it."""

    name: str
    pixels: np.ndarray | None = None
    prepared: torch.Tensor | None = None
    error: UnreadableImage | None = None


@dataclass(frozen=True)
class _Proposal:
    """One image after the worker threads: its objects as rows without embeddings, and their crops."""

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
    if callable(proposer):
        proposals = _proposals(root, shards, config, proposer, backend, workers)
    else:
        proposals = _network_proposals(root, shards, config, proposer, backend, workers)
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
        self.embeddings: list[np.ndarray] = []

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
        embeddings = np.concatenate([np.empty((0, dimension), np.float32), *self.embeddings])
        schema = object_schema(dimension)
        columns = {name: [row[name] for row in self.rows] for name in schema.names if name != "embedding"}
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), dimension)
        objects = pa.table({**columns, "embedding": embedding}, schema=schema)
        skipped = pa.Table.from_pylist(self.skipped, schema=SKIPPED_SCHEMA)
        self._reset()
        return ObjectShard(objects, skipped)

    def _embed(self, count: int) -> None:
        batch, self.crops = self.crops[:count], self.crops[count:]
        rows = torch.cat(self.batches.run(self.encoder, torch.cat(batch))).numpy()
        if self.config.normalize:
            rows = unit_rows(rows)
        self.embeddings.append(rows)


def _proposals(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: Proposer,
    backend: Backend,
    workers: int,
) -> Iterator[_Proposal]:
    """Every image from file to crops in one worker thread."""

    def propose(name: str) -> _Proposal:
        image = _decoded(root, name, config, backend, None)
        try:
            return _finished(image, None if image.pixels is None else proposer(name, image.pixels), config, backend)
        except UnreadableImage as error:  # its mask, for instance
            return _finished(replace(image, error=error), None, config, backend)

    return read_ahead(propose, (name for shard in shards for name in shard), workers)


def _network_proposals(
    root: ImageRoot,
    shards: Sequence[Sequence[str]],
    config: EmbedConfig,
    proposer: NetworkProposer,
    backend: Backend,
    workers: int,
) -> Iterator[_Proposal]:
    """Worker threads read images, the network sees them a batch at a time, worker threads cut out what it found."""

    def decode(name: str) -> _Decoded:
        return _decoded(root, name, config, backend, proposer)

    fitting = FittingBatches(backend.device)

    def found_in(prepared: list[torch.Tensor]) -> Iterator[np.ndarray]:
        for part in fitting.run(proposer.propose, torch.stack(prepared)) if prepared else []:
            yield from part

    def with_maps() -> Iterator[tuple[_Decoded, np.ndarray | None]]:
        images = read_ahead(decode, (name for shard in shards for name in shard), workers)
        for shard in shards:
            for start in range(0, len(shard), proposer.batch):
                batch = [next(images) for _ in shard[start : start + proposer.batch]]
                found = found_in([image.prepared for image in batch if image.prepared is not None])
                yield from ((image, None if image.prepared is None else next(found)) for image in batch)

    def finish(item: tuple[_Decoded, np.ndarray | None]) -> _Proposal:
        image, maps = item
        if image.pixels is not None and maps is not None:
            maps = enlarged_maps(maps, image.pixels.shape[:2])
        return _finished(image, maps, config, backend)

    return read_ahead(finish, with_maps(), workers)


def _decoded(
    root: ImageRoot, name: str, config: EmbedConfig, backend: Backend, proposer: NetworkProposer | None
) -> _Decoded:
    """Read an image; runs in a worker thread and never raises for a bad one."""
    try:
        pixels = backend.decode(root / name, config.max_pixels)
    except UnreadableImage as error:
        return _Decoded(name, error=error)
    return _Decoded(name, pixels, proposer.prepare(pixels) if proposer else None)


def _finished(image: _Decoded, maps: np.ndarray | None, config: EmbedConfig, backend: Backend) -> _Proposal:
    """Cut out the objects of `maps` (M, H, W); runs in a worker thread."""
    nothing = torch.empty((0, 3, config.crop_size, config.crop_size), dtype=torch.uint8)
    height, width = (0, 0) if image.pixels is None else image.pixels.shape[:2]

    def skipped(reason: str, detail: str) -> _Proposal:
        row = {"image": image.name, "reason": reason, "detail": detail, "width": width, "height": height}
        return _Proposal([], nothing, [row])

    if image.error is not None:
        return skipped(image.error.reason, image.error.detail)
    assert image.pixels is not None and maps is not None
    found = backend.mask_boxes(maps, config.theta, config.min_area)
    if not len(found.masks):
        if found.too_small:
            return skipped("smaller than min_area", f"no object of {config.min_area} px or more")
        return skipped("no salient region", "")
    encoded = coco_mask.encode(np.asfortranarray(found.masks.transpose(1, 2, 0).astype(np.uint8)))
    rows = [
        {
            "image": image.name,
            "width": width,
            "height": height,
            **dict(zip(("x0", "y0", "x1", "y1"), box.tolist(), strict=True)),
            "area": int(area),
            "score": float(score),
            "mask": run_lengths["counts"].decode("ascii"),
        }
        for box, area, score, run_lengths in zip(found.boxes, found.areas, found.scores, encoded, strict=True)
    ]
    return _Proposal(rows, backend.crop_resize(image.pixels, found.boxes, config.crop_size), [])


def lost_images(skipped: pa.Table) -> list[str]:
    """Those of `SKIPPED_SCHEMA` that were there when the folder was listed and gone when they were to be read."""
    return [row["image"] for row in skipped.select(["image", "reason"]).to_pylist() if row["reason"] == LOST]


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """(H, W) bool from the `mask` column."""
    return coco_mask.decode({"size": [height, width], "counts": counts.encode("ascii")}).astype(bool)
