"""`embed`: find the objects of every image and embed them (the paper's steps 1 to 3)."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.images.found import ImageList
from fastcomus.images.listing import Images
from fastcomus.images.mask_files import MaskFiles
from fastcomus.images.names import check_names
from fastcomus.images.roots import ImageRoot, describe_root, make_root_absolute
from fastcomus.images.stamps import stamp_file, stamp_images
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.registry import check_name
from fastcomus.objects.saliency.methods import METHODS, check_saliency, load_proposer
from fastcomus.progress import count, show_progress
from fastcomus.run.changed_images import fingerprint_sizes
from fastcomus.run.contents import has_other_objects, read_skipped
from fastcomus.run.engines.work import Loaded, Stored
from fastcomus.run.own_network import has_enough_images, mark_saliency, obtain_saliency, shorten_saliency
from fastcomus.run.own_objects import is_object_table, read_own_objects
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.folder import UNFINISHED
from fastcomus.store.objects_table import (
    SKIPPED_SCHEMA,
    count_shard_rows,
    finish_shards,
    has_shard,
    read_part_digests,
    write_shard,
)
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend
    from fastcomus.objects.embedding import ObjectShard

log = logging.getLogger("fastcomus")
_OTHER_FOLDER = "another --run, add --replace to drop those objects, or give the new images to fastcomus predict"
_WORTH_IT_FROM = 300  # images whose gain makes up for translating the encoder for OpenVINO


@dataclass(frozen=True)
class Embedded:
    """What `embed` did.

    Attributes:
        images: Images looked at.
        objects: Objects found.
        skipped: Images without an object, and files that could not be used.
    """

    images: int
    objects: int
    skipped: int


@stage()
def embed(
    at: Workplace, images: Images, replace: bool = False, *, engine: str, address: str, settings: Mapping[str, Any]
) -> Embedded:
    """Find and embed the objects of `images`; see `Run.embed`."""
    chosen_engine, folder = at.choose_engine(engine, address), at.folder
    found = at.list_images(images, settings)
    config = with_settings(at.config, {"embed": settings})
    chosen = config.embed
    check_names(found.names, folder.path)
    if not (has_own := is_object_table(chosen.masks)):
        check_saliency(chosen, found.names)
        check_name(chosen.encoder)
    if chosen.compile and at.inference == "openvino":
        raise InputError("--compile is torch's; leave it out, or leave out --inference openvino.")
    if not replace:
        refuse_other_images(at, found)

    mark = mark_saliency(found, config)
    shards = _cut_into_shards(found, dataclasses.replace(chosen, saliency=mark))
    whole = _fingerprint_all(shards, found)
    parts = read_part_digests(folder)
    missing = [one for one in shards if not has_shard(folder, one.index, one.fingerprint, parts.get(one.index, ""))]
    if folder.is_current("objects", whole) and not missing:
        at.remember(config, found.root)
        log.info("embed: up to date, %d images", len(found.names))
        return _count_embedded(at, len(found.names))

    own = read_own_objects(at, Path(chosen.masks), found, chosen.max_pixels) if has_own else None
    if own is None:
        chosen = dataclasses.replace(chosen, saliency=obtain_saliency(mark, found, config, at))

    def store(made: EmbeddedShard) -> None:
        shard = shards[made.index]
        from fastcomus.objects.embedding import list_lost_images

        if lost := list_lost_images(made.shard.skipped):  # the next run must look for them again
            shard = dataclasses.replace(shard, fingerprint=compute_fingerprint(shard=shard.fingerprint, lost=lost))
            shards[made.index] = shard
        write_shard(folder, made.index, made.shard.objects, made.shard.skipped, shard.fingerprint)

    done = len(found.names) - sum(len(shard.names) for shard in missing)
    if own:
        from fastcomus.objects.embedding import ObjectShard

        at.remember(config, found.root)
        folder.remove("objects/manifest.json")
        for shard in shards:
            store(EmbeddedShard(shard.index, len(shard.names), ObjectShard(*own.select(shard.names))))
    else:
        inference = "torch" if chosen.compile else at.choose_inference(len(found.names), _WORTH_IT_FROM)
        work = make_embed_work(found.root, chosen, inference)
        with (
            show_progress("embed", len(found.names), "images", done) as advance,
            chosen_engine.stream_results(work, missing, store, advance) as stored,
        ):
            at.remember(config, found.root)
            folder.remove("objects/manifest.json")
            for _ in stored:
                reach_safe_point()
    listed = [{**asdict(item), "width": 0, "height": 0} for item in found.skipped]
    skipped = pa.Table.from_pylist(listed, schema=SKIPPED_SCHEMA)
    found_by = shorten_saliency(chosen.saliency, folder)
    facts = {"saliency": found_by, "is_taught": has_enough_images(found, config), "sizes": fingerprint_sizes(found)}
    finish_shards(folder, len(shards), skipped, _fingerprint_all(shards, found), **facts)
    embedded = _count_embedded(at, len(found.names))
    log.info("embed: %d images looked at, %d objects found", embedded.images, embedded.objects)
    _log_skipped(at)
    clusters = folder.read_manifest("clusters")
    if clusters and has_other_objects(folder, clusters):
        log.info("embed: the clusters are of the objects before; fastcomus cluster makes them anew")
    return embedded


def count_missing_images(at: Workplace, found: ImageList, replace: bool = False) -> int:
    """Return how many of the images `embed` would look at, with the settings of the run; see `Run.embed`."""
    if not replace:
        refuse_other_images(at, found)
    marked = dataclasses.replace(at.config.embed, saliency=mark_saliency(found, at.config))
    parts = read_part_digests(at.folder)
    return sum(
        len(one.names)
        for one in _cut_into_shards(found, marked)
        if not has_shard(at.folder, one.index, one.fingerprint, parts.get(one.index, ""))
    )


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


def refuse_other_images(at: Workplace, found: ImageList, choice: str = _OTHER_FOLDER) -> None:
    """Raise InputError if the run folder holds objects of other images, which would be lost; `choice`: what to do."""
    root = describe_root(found.root)
    if at.images in ("", root) or not (parts := sorted((at.folder.path / "objects").glob("part-*.parquet"))):
        return
    held = {image for part in parts for image in at.folder.read_checked(f"objects/{part.name}", _read_image_names)}
    if not held <= set(found.names):  # else the same photographs, moved
        raise InputError(
            f"{at.folder.path} holds the objects of {at.images}, and {root} has other images. Choose {choice}."
        )


def _read_image_names(part: Path) -> list[str]:
    names: list[str] = pq.read_table(part, columns=["image"])["image"].to_pylist()
    return names


def _make_absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _cut_into_shards(found: ImageList, config: EmbedConfig) -> list[ShardOfImages]:
    masks = MaskFiles(Path(config.masks)) if config.masks and Path(config.masks).is_dir() else None
    own_files = (config.saliency, config.encoder_weights, config.masks)
    files = [Path(name) for name in own_files if Path(name).is_file()]
    checkpoints = [stamp_file(file) for file in files]
    size, shards = config.shard_images, []
    settings = asdict(config)
    del settings["every_seconds"]  # names say which frames of a video there are
    if not settings["map_edges"]:  # which versions before did not know
        del settings["map_edges"]
    for index, start in enumerate(range(0, len(found.names), size)):
        names = found.names[start : start + size]
        stamps = stamp_images(found, names, masks)
        mark = compute_fingerprint(config=settings, checkpoints=checkpoints, images=stamps)
        shards.append(ShardOfImages(index, names, mark))
    return shards


def _fingerprint_all(shards: Sequence[ShardOfImages], found: ImageList) -> str:
    marks = [shard.fingerprint for shard in shards]
    return compute_fingerprint(shards=marks, skipped=[asdict(item) for item in found.skipped])


def _count_embedded(at: Workplace, images: int) -> Embedded:
    embedded = Embedded(images, count_shard_rows(at.folder), len(read_skipped(at.folder)))
    count(**asdict(embedded))
    return embedded


def _log_skipped(at: Workplace) -> None:
    """Say which images are left out and why: each one of a few, the counts of many."""
    skipped = read_skipped(at.folder).to_pylist()
    if len(skipped) <= 5:
        for row in skipped:
            detail = f" ({row['detail']})" if row["detail"] else ""
            log.info("embed: left out %s: %s%s", row["image"], row["reason"], detail)
        return
    for reason, images in Counter(row["reason"] for row in skipped).most_common():
        log.info("embed: left out %d images: %s", images, reason)
    if not at.folder.path.name.endswith(UNFINISHED):  # as that of a first look, which goes away
        log.info("embed: their names are in %s", at.folder.resolve_file("objects/skipped.parquet"))
