"""`embed`: find the objects of every image and embed them (the paper's steps 1 to 3)."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.errors import InputError
from fastcomus.images.found import ImageList
from fastcomus.images.listing import Images
from fastcomus.images.names import check_names
from fastcomus.images.roots import describe_root
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.registry import check_name
from fastcomus.objects.saliency.methods import check_saliency
from fastcomus.progress import count, show_progress
from fastcomus.run.changed_images import fingerprint_sizes
from fastcomus.run.contents import has_other_objects, read_skipped
from fastcomus.run.embed_work import EmbeddedShard, ShardOfImages, cut_into_shards, make_embed_work
from fastcomus.run.judged_objects import presume_objects, settle_objects
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
    obtain = functools.cache(lambda: obtain_saliency(mark, found, config, at))
    settled = settle_objects(found, config, mark, at, chosen_engine, obtain)
    chosen = dataclasses.replace(chosen, saliency=mark, objects=settled)
    shards = cut_into_shards(found, chosen)
    whole = _fingerprint_all(shards, found)
    parts = read_part_digests(folder)
    missing = [one for one in shards if not has_shard(folder, one.index, one.fingerprint, parts.get(one.index, ""))]
    if folder.is_current("objects", whole) and not missing:
        at.remember(config, found.root)
        log.info("embed: up to date, %d images", len(found.names))
        return _count_embedded(at, len(found.names))

    own = read_own_objects(at, Path(chosen.masks), found, chosen.max_pixels) if has_own else None
    if own is None:
        chosen = dataclasses.replace(chosen, saliency=obtain())

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
    facts = {"saliency": found_by, "objects": chosen.objects, "is_taught": has_enough_images(found, config)}
    whole = _fingerprint_all(shards, found)
    finish_shards(folder, len(shards), skipped, whole, **facts, sizes=fingerprint_sizes(found))
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
    known = presume_objects(found, marked, at)
    if known.judged:
        return len(found.names)
    marked = dataclasses.replace(marked, objects=known.objects)
    parts = read_part_digests(at.folder)
    return sum(
        len(one.names)
        for one in cut_into_shards(found, marked)
        if not has_shard(at.folder, one.index, one.fingerprint, parts.get(one.index, ""))
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
