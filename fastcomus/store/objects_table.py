"""The Parquet parts of `objects/`: their schema, and writing and reading them one by one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from fastcomus.errors import InputError
from fastcomus.store.integrity import compute_file_digest
from fastcomus.store.run_folder import RunFolder

SKIPPED_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("width", pa.int32()),  # 0 where the image could not be read
        ("height", pa.int32()),
    ]
)


def make_object_schema(dimension: int) -> pa.Schema:
    """Return the columns of a part for embeddings of `dimension` numbers.

    Boxes are in pixels and half-open; `mask` holds COCO run lengths at the size of the image.
    """
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


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """Decode a value of the column `mask` to (H, W) bool."""
    pixels: np.ndarray = coco_mask.decode({"size": [height, width], "counts": counts.encode("ascii")})
    return pixels.astype(bool)


def has_shard(folder: RunFolder, index: int, fingerprint: str, digest: str = "") -> bool:
    """Whether part `index` is there, whole, and made from what `fingerprint` says.

    Args:
        folder: The run.
        index: Number of the part.
        fingerprint: Digest of the settings and images that the part must be made from.
        digest: SHA-256 (hex) of the file where a manifest knows it; without one all pages' checksums are checked.
    """
    file = folder.resolve_file(_name_part(index))
    try:
        metadata = pq.read_metadata(file).metadata or {}
        if metadata.get(b"fastcomus.fingerprint") != fingerprint.encode():
            return False
        if not digest:
            pq.read_table(file, page_checksum_verification=True)
        return not digest or compute_file_digest(file) == digest
    except (OSError, pa.ArrowException):
        return False


def read_objects_fingerprint(folder: RunFolder) -> str:
    """Return the fingerprint of the objects that are there; "" where embedding has not ended."""
    return str((folder.read_manifest("objects") or {}).get("fingerprint", ""))


def read_part_digests(folder: RunFolder) -> dict[int, str]:
    """Return the SHA-256 (hex) of every part by its index; empty until embedding has ended."""
    parts = (folder.read_manifest("objects") or {}).get("parts", {})
    return {int(name.removeprefix("part-").removesuffix(".parquet")): digest for name, digest in parts.items()}


def write_shard(folder: RunFolder, index: int, objects: pa.Table, skipped: pa.Table, fingerprint: str) -> None:
    """Write one part. The images it skipped stand in its metadata, so that a part is a single atomic file.

    Args:
        folder: The run.
        index: Number of the part.
        objects: Rows of `make_object_schema`.
        skipped: Rows of SKIPPED_SCHEMA.
        fingerprint: Digest of the settings and images that the part was made from.
    """
    metadata = {"fastcomus.fingerprint": fingerprint, "fastcomus.skipped": json.dumps(skipped.to_pylist())}
    folder.write_table(_name_part(index), objects.replace_schema_metadata(metadata))


def finish_shards(folder: RunFolder, count: int, skipped: pa.Table, fingerprint: str, **facts: Any) -> None:
    """Write skipped.parquet and the manifest of `objects`, and remove surplus parts.

    Args:
        folder: The run.
        count: Number of parts.
        skipped: Rows of SKIPPED_SCHEMA that come before what the parts skipped.
        fingerprint: Digest of the settings and images of the whole stage.
        **facts: What else the manifest holds.
    """
    rows = skipped.to_pylist()
    for index in range(count):
        metadata = pq.read_metadata(folder.resolve_file(_name_part(index))).metadata
        rows += json.loads(metadata[b"fastcomus.skipped"])
    wanted = {folder.resolve_file(_name_part(index)).name for index in range(count)}
    for part in folder.resolve_file("objects").glob("part-*.parquet"):
        if part.name not in wanted:
            folder.remove(f"objects/{part.name}")
    folder.write_table("objects/skipped.parquet", pa.Table.from_pylist(rows, schema=skipped.schema))
    digests = {name: compute_file_digest(folder.resolve_file(f"objects/{name}")) for name in sorted(wanted)}
    folder.finish("objects", fingerprint, parts=digests, skipped=len(rows), **facts)


def count_shard_rows(folder: RunFolder) -> int:
    """Return the number of objects, from the parts' metadata alone. Raises InputError if a part is damaged."""
    parts = (folder.read_manifest("objects") or {}).get("parts", {})
    return sum(folder.read_checked(f"objects/{name}", pq.read_metadata).num_rows for name in parts)


def read_shards(folder: RunFolder, columns: list[str] | None = None) -> pa.Table:
    """Return the rows of all parts in one table; arguments and errors as for `iterate_shards`."""
    return pa.concat_tables(iterate_shards(folder, columns))


def iterate_shards(folder: RunFolder, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read the parts one after the other. All objects of an image are in one part.

    Args:
        folder: The run.
        columns: The columns to read; None reads all.

    Yields:
        The rows of each part, in order.

    Raises:
        InputError: There are no parts, or one is damaged.
    """
    manifest = folder.read_manifest("objects")
    if manifest is None:
        raise InputError(f"there are no objects in {folder.path}; run fastcomus embed FOLDER first.")
    for name, digest in manifest["parts"].items():
        yield folder.read_table(f"objects/{name}", columns, digest).replace_schema_metadata(None)


def read_whole_images(folder: RunFolder, rows: Collection[int], columns: list[str]) -> tuple[pa.Table, np.ndarray]:
    """Read all objects of the images that hold some of them; other parts are not touched.

    Args:
        folder: The run.
        rows: Rows of objects.
        columns: The columns to read, `image` among them.

    Returns:
        The rows of all objects of these images, and their places (M,) among all objects, ascending.

    Raises:
        InputError: There are no parts, or one is damaged.
    """
    wanted, first = np.array(sorted(rows), np.int64), 0
    tables, places = [], []
    parts = (folder.read_manifest("objects") or {}).get("parts", {})
    for name, digest in parts.items():
        count = folder.read_checked(f"objects/{name}", pq.read_metadata).num_rows
        here = wanted[(wanted >= first) & (wanted < first + count)] - first
        if len(here):
            part = folder.read_table(f"objects/{name}", columns, digest).replace_schema_metadata(None)
            chosen = pc.is_in(part["image"], part["image"].take(pa.array(here)).combine_chunks())
            tables.append(part.filter(chosen))
            places.append(first + np.flatnonzero(chosen.to_numpy(zero_copy_only=False)))
        first += count
    return pa.concat_tables(tables), np.concatenate(places)


def _name_part(index: int) -> str:
    return f"objects/part-{index:05d}.parquet"
