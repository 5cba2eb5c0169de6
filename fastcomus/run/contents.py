"""What a run folder holds, for the commands that build on it: objects, clusters, iterations, images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastcomus.clusters.files import read_corrected_manifest, read_names
from fastcomus.clusters.named_masks import ClassMaps
from fastcomus.errors import InputError
from fastcomus.images.listing import open_root
from fastcomus.images.roots import ImageRoot
from fastcomus.run.workplace import Workplace
from fastcomus.store.embeddings import check_embeddings, fingerprint_embeddings, join_rows, read_embeddings
from fastcomus.store.objects_table import count_shard_rows, iterate_shards, read_objects_fingerprint, read_shards
from fastcomus.store.row_blocks import RowBlocks, open_object_rows, open_rows
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.shelf import list_kept

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class ImageSource:
    """Images that can be read.

    Attributes:
        root: What the names are relative to.
        names: The images, sorted.
        folder: Where in iteration-N/ their masks lie: FOLDER/masks/, or masks/ for "".
        stamp: A fingerprint that changes when an image does; "" for the images of the objects, which have their own.
    """

    root: ImageRoot
    names: tuple[str, ...]
    folder: str = ""
    stamp: str = ""


def read_embedding_rows(folder: RunFolder) -> np.ndarray:
    """Return the embeddings of all objects, (N, D) float32; raise InputError where there are none."""
    return join_rows(iterate_shards(folder, ["embedding"]), count_shard_rows(folder), folder.path)


def read_skipped(folder: RunFolder) -> pa.Table:
    """Return the images that gave no object and the files that could not be used, with reasons."""
    return folder.read_table("objects/skipped.parquet")


def open_image_source(at: Workplace) -> ImageSource:
    """Return the embedded images that could be read; raise InputError where they are gone."""
    if not at.images:
        raise InputError(f"{at.folder.path} holds no images, only embeddings; run fastcomus embed FOLDER first.")
    objects = read_shards(at.folder, ["image"])["image"].to_pylist()
    readable = [row["image"] for row in read_skipped(at.folder).to_pylist() if row["width"]]
    names = tuple(sorted({*objects, *readable}))
    root = open_root(at.images, names)
    if names and isinstance(root, Path) and not any((root / name).exists() for name in names):
        raise InputError(
            f"none of the {len(names)} photographs of this run lie in {root}, such as {names[0]}; give the folder "
            "where they are now by --images."
        )
    return ImageSource(root, names)


def check_images_are_there(sources: Sequence[ImageSource]) -> None:
    """Raise InputError where images, which are about to be read, are gone; those in archives are not looked for."""
    for source in sources:
        if not isinstance(source.root, Path):
            continue
        gone = [name for name in source.names if not (source.root / name).exists()]
        if gone:
            raise InputError(
                f"{len(gone)} of {len(source.names)} photographs are no longer in {source.root}, such as {gone[0]}; "
                "put them back, or run fastcomus embed and cluster to go on without them."
            )


def read_clusters_manifest(folder: RunFolder) -> dict[str, Any]:
    """Return the manifest of the clusters as corrected (`read_corrected_manifest`); InputError where there are none."""
    manifest = read_corrected_manifest(folder)
    if manifest is None and not folder.path.exists():
        raise InputError(f"there is no run folder {folder.path}; run fastcomus run FOLDER, or check --run.")
    if manifest is None and folder.read_manifest("objects") and not count_shard_rows(folder):
        raise InputError(
            f"no object was found in the photographs of {folder.path}; objects/skipped.parquet says why, and fastcomus "
            "embed finds others with another --saliency or with --masks of your own."
        )
    if manifest is None:
        remedy = "cluster" if folder.read_manifest("objects") else "run FOLDER, which goes on where it was stopped"
        raise InputError(f"there are no clusters in {folder.path} yet; run fastcomus {remedy}.")
    return manifest


def check_source(folder: RunFolder, clusters: Mapping[str, Any], now: str) -> None:
    """Raise InputError unless the clusters were made of the rows whose fingerprint is `now`."""
    if clusters["source"] != now:
        raise InputError(
            f"the clusters in {folder.path} are not of the objects that are there now; run fastcomus cluster."
        )


def has_other_objects(folder: RunFolder, clusters: Mapping[str, Any]) -> bool:
    """Whether the clusters were made of objects of images, and not of those that are there now."""
    return bool(clusters["images"]) and clusters["source"] != read_objects_fingerprint(folder)


def read_clustered_rows(folder: RunFolder, clusters: Mapping[str, Any]) -> np.ndarray:
    """Return the embeddings that the clusters were made of, (N, D) float32; raise InputError if they changed since."""
    open_clustered_rows(folder, clusters)
    if clusters["images"]:
        return check_embeddings(read_embedding_rows(folder))
    return check_embeddings(read_embeddings(clusters["embeddings"])[0])


def open_clustered_rows(folder: RunFolder, clusters: Mapping[str, Any]) -> RowBlocks:
    """Open the embeddings that the clusters were made of, to be read in blocks; errors as by `read_clustered_rows`."""
    if clusters["source"] == clusters.get("graph"):
        raise InputError("these clusters were made of a graph alone, without embeddings; cluster both together.")
    if clusters["images"]:
        check_source(folder, clusters, read_objects_fingerprint(folder))
        return open_object_rows(folder)
    if not clusters["embeddings"]:
        raise InputError("these clusters were made of an array in memory; cluster an .npy file to assign to them.")
    rows = open_rows(clusters["embeddings"])
    check_source(folder, clusters, fingerprint_embeddings(clusters["embeddings"]))
    return rows


def list_iterations(folder: RunFolder) -> list[int]:
    """Return the iterations whose masks follow from today's clusters, [0, 1, ...]; raise InputError if none do.

    Networks that were trained before the last corrections count, unless these took clusters away.
    """
    clusters, first = read_clusters_manifest(folder), folder.read_manifest("iteration-0")
    if first is None or first["follows"] != clusters["corrected"]:
        mending = "cluster" if first and clusters["fingerprint"] in (first["follows"], first.get("found")) else ""
        mending = mending or "embed, then fastcomus cluster"
        raise InputError(f"there are no masks in {folder.path}; run fastcomus {mending}.")
    done, follows = [0], {first["fingerprint"], *first.get("earlier", [])}
    while (manifest := folder.read_manifest(f"iteration-{len(done)}")) and manifest["follows"] in follows:
        if manifest["k"] > clusters["k"]:
            break
        follows = {manifest["fingerprint"]}
        done.append(len(done))
    return done


def warn_of_corrections(folder: RunFolder, iteration: int) -> None:
    """Say so where the network of an iteration was trained before the last corrections."""
    first, trained = (folder.read_manifest(f"iteration-{one}") or {} for one in (0, 1))
    if iteration and trained.get("follows") != first.get("fingerprint"):
        told = "note: the network of iteration %d does not know the last corrections; run fastcomus train."
        log.warning(told, iteration)


def choose_trained_iteration(folder: RunFolder, wanted: int | None) -> int:
    """Return `wanted`, or the last iteration for None; raise InputError if it has no network."""
    done = list_iterations(folder)[1:]
    if not done:
        trained = [name for name, kept in list_kept(folder).items() if kept.read_manifest("iteration-1")]
        back = f", or go back to clusters that have a network: fastcomus history --use {trained[-1]}" if trained else ""
        raise InputError(f"no network has been trained on the clusters in {folder.path}; run fastcomus train{back}.")
    chosen = _choose_among(done, wanted)
    warn_of_corrections(folder, chosen)
    return chosen


def select_class_maps(at: Workplace, wanted: int | None) -> tuple[ClassMaps, ImageSource]:
    """Return the named class maps of iteration `wanted`, or of the last one for None, and their images."""
    chosen = _choose_among(list_iterations(at.folder), wanted)
    warn_of_corrections(at.folder, chosen)
    source = open_image_source(at)
    names = read_names(at.folder, read_clusters_manifest(at.folder))
    return ClassMaps(at.folder, chosen, source.names, names, at.workers), source


def _choose_among(done: list[int], wanted: int | None) -> int:
    if wanted is not None and wanted not in done:
        raise InputError(f"--iteration must be one of {', '.join(map(str, done))}; got {wanted}.")
    return done[-1] if wanted is None else wanted
