"""corrections.parquet: what a person said about single objects, a row for each word about one, in order.

An object is known by its image and box, so that corrections hold when objects are found anew, if a little differently.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.errors import InputError, get_first_line
from fastcomus.store.objects_table import read_objects_fingerprint, read_shards
from fastcomus.store.run_folder import RunFolder

CORRECTIONS_FILE = "corrections.parquet"
_SAME_OBJECT = 0.5  # IoU of boxes
MOVED, NOT_AN_OBJECT, AS_FOUND = "moved", "not an object", "as found"
NO_CLUSTER = -1  # of what is not an object
FOUND_CLUSTER = -2  # of what is taken back: the object belongs where it was found

BOX = ("x0", "y0", "x1", "y1")
_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),  # what was done at once has one number, and is undone at once
        ("correction", pa.string()),
        ("image", pa.string()),
        *((side, pa.int32()) for side in BOX),
        ("cluster", pa.int32()),  # where to; NO_CLUSTER or FOUND_CLUSTER
        ("object", pa.int64()),  # row of the object; -1 where it is no longer there
    ]
)
_OBJECTS = b"fastcomus.objects"  # fingerprint of the objects that the rows belong to


def read_corrections(folder: RunFolder, objects: RunFolder | None = None) -> pa.Table:
    """Read the corrections of a run, with the rows of the objects that are there now; none without the file.

    Args:
        folder: The run folder, or the folder of clusters that were put aside.
        objects: The run folder that holds the objects, by default the same.

    Returns:
        step, correction ("moved", "not an object" or "as found"), image, x0, y0, x1, y1, cluster, object.

    Raises:
        InputError: If the file is damaged.
    """
    file = folder.resolve_file(CORRECTIONS_FILE)
    if not file.exists():
        return pa.Table.from_batches([], _SCHEMA)  # empty_table() imports pandas
    try:
        table = pq.read_table(file, page_checksum_verification=True)
        rows = table.select(_SCHEMA.names).cast(_SCHEMA)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{file} cannot be read ({get_first_line(error)}); put back a copy of it, or delete it and correct anew."
        ) from error
    if (table.schema.metadata or {}).get(_OBJECTS, b"").decode() == read_objects_fingerprint(objects or folder):
        return rows
    return rows.set_column(rows.schema.get_field_index("object"), "object", _find_objects(objects or folder, rows))


def write_corrections(folder: RunFolder, corrections: pa.Table) -> None:
    """Write corrections, whole or not at all; their column `object` belongs to the objects that are there now."""
    if not len(corrections):
        folder.remove(CORRECTIONS_FILE)
        return
    metadata = {_OBJECTS: read_objects_fingerprint(folder).encode()}
    folder.write_table(CORRECTIONS_FILE, corrections.cast(_SCHEMA).replace_schema_metadata(metadata))


def make_corrections(folder: RunFolder, step: int, objects: np.ndarray, cluster: int) -> pa.Table:
    """Make rows that move objects to a cluster.

    Args:
        folder: The run folder, whose objects are read.
        step: Number of the step.
        objects: (M,) integers, rows of the objects.
        cluster: Where to; NO_CLUSTER says that they are no objects, FOUND_CLUSTER takes corrections back.
    """
    own = read_shards(folder, ["image", *BOX]).take(pa.array(objects, pa.int64()))
    kind = {NO_CLUSTER: NOT_AN_OBJECT, FOUND_CLUSTER: AS_FOUND}.get(cluster, MOVED)
    columns = {name: own[name] for name in ("image", *BOX)}
    fixed = {"step": step, "correction": kind, "cluster": cluster}
    columns |= {name: pa.array([value] * len(own)) for name, value in fixed.items()}
    return pa.table({**columns, "object": pa.array(objects, pa.int64())}).select(_SCHEMA.names).cast(_SCHEMA)


def _find_objects(folder: RunFolder, corrections: pa.Table) -> pa.Array:
    """Return the rows of the corrected objects among those that are there now, -1 for those that are not.

    An object that was found anew is the one of its image whose box overlaps most, if it does by half (IoU).
    """
    if folder.read_manifest("objects") is None:
        return pa.array([-1] * len(corrections), pa.int64())
    present = read_shards(folder, ["image", *BOX])
    images = corrections["image"].to_pylist()
    wanted, rows_of = set(images), dict[str, list[int]]()
    for row, image in enumerate(present["image"].to_pylist()):
        if image in wanted:
            rows_of.setdefault(image, []).append(row)
    boxes, theirs = (np.stack([table[side].to_numpy() for side in BOX], axis=1) for table in (present, corrections))
    found = []
    for image, box in zip(images, theirs, strict=True):
        rows = np.array(rows_of.get(image, []), np.int64)
        overlaps = _compute_overlaps(boxes[rows], box)
        found.append(int(rows[overlaps.argmax()]) if len(rows) and overlaps.max() >= _SAME_OBJECT else -1)
    return pa.array(found, pa.int64())


def _compute_overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Compute the IoU, (N,), of boxes (N, 4) with one: x0, y0, x1, y1, the end exclusive."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(min=0).astype(np.int64).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).astype(np.int64).prod(axis=1) + np.int64((box[2:] - box[:2]).prod())
    overlaps: np.ndarray = shared / np.maximum(areas - shared, 1)
    return overlaps
