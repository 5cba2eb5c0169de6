"""`correct`: objects moved to another or a new cluster, or said to be no objects; and taking back the last word."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastcomus.clusters.alike import find_alike
from fastcomus.clusters.corrections import count_clusters, settle_corrections
from fastcomus.clusters.files import read_clusters, read_names, write_names
from fastcomus.clusters.names import DROPPED, ClusterNames
from fastcomus.clusters.shown_tables import write_shown_tables
from fastcomus.errors import InputError, suggest_names
from fastcomus.run.cluster_masks import write_cluster_masks
from fastcomus.run.contents import (
    check_source,
    read_clusters_manifest,
    read_embedding_rows,
)
from fastcomus.run.workplace import Workplace
from fastcomus.store.corrections import FOUND_CLUSTER, NO_CLUSTER, make_corrections, read_corrections, write_corrections
from fastcomus.store.objects_table import count_shard_rows, read_objects_fingerprint
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.shelf import count_steps

log = logging.getLogger("fastcomus")
NEW, FOUND = "new", "found"
_SHOWN_ROWS = 20


def correct(
    at: Workplace,
    objects: Sequence[int] | int = (),
    to: int | str | None = None,
    *,
    alike: bool = False,
    undo: bool = False,
) -> pa.Table:
    """Say where objects belong, and return all corrections; see `Run.correct`."""
    folder = at.folder
    objects = [objects] if isinstance(objects, int | np.integer) else objects
    clusters = read_clusters_manifest(folder)
    spoken = read_corrections(folder)
    if not (undo or alike) and to is None and not len(objects):
        return spoken  # also while another process writes to the folder
    if undo and (len(objects) or to is not None or alike):
        raise InputError("undo takes back the last correction; give nothing else with it.")
    if alike and to == FOUND:
        raise InputError("alike goes with a cluster, new or -; to take corrections back, name their objects.")
    if to in (NEW, FOUND) and to in read_names(folder, clusters).classes:
        raise InputError(f"{to!r} is a word of this command and the name of a cluster; give the cluster's number.")
    if not clusters["images"]:
        raise InputError("these clusters are of embeddings without images; correct the rows themselves.")
    check_source(folder, clusters, read_objects_fingerprint(folder))
    with folder.writer.hold():
        spoken = read_corrections(folder)
        if undo:
            now = _take_back(spoken)
        else:
            rows = _check_objects(folder, objects)
            found = find_alike_objects(folder, objects, read_embedding_rows(folder)) if alike else rows[:0]
            now = _add_step(folder, spoken, np.concatenate([rows, found]), to)
            if alike:
                log.info("correct: %d more objects are like these%s", len(found), _list_rows(found))
        _write(at, now)
    return now


def find_alike_objects(folder: RunFolder, objects: Sequence[int], embeddings: np.ndarray) -> np.ndarray:
    """Find objects that are more like those given than like their own cluster; none of which a person spoke.

    Args:
        folder: The run folder.
        objects: Rows of the examples.
        embeddings: (N, D) float32, of all objects.

    Returns:
        Rows, (M,) int64, the surest first; see `find_alike`.
    """
    found = find_alike(embeddings, read_clusters(folder).labels, _check_objects(folder, objects))
    return found[~np.isin(found, list(settle_corrections(read_corrections(folder))))]


def put_back(at: Workplace, corrections: pa.Table, names: Mapping[int, str]) -> None:
    """Go back to corrections and names as they were earlier, of the same clusters."""
    folder = at.folder
    with folder.writer.hold():
        clusters = read_clusters_manifest(folder)
        k = count_clusters(settle_corrections(corrections), (folder.read_manifest("clusters") or {})["k"])
        known = {cluster: name for cluster, name in names.items() if cluster < clusters["k"]}
        write_names(folder, clusters, {cluster: name for cluster, name in known.items() if cluster < k})
        _write(at, corrections)
        if known != names:  # names of added clusters that are there again
            named = write_names(folder, read_clusters_manifest(folder), names)
            write_shown_tables(folder, named)


def _take_back(spoken: pa.Table) -> pa.Table:
    if not len(spoken):
        raise InputError("there is no correction to take back.")
    return spoken.filter(pc.less(spoken["step"], pc.max(spoken["step"])))


def _add_step(folder: RunFolder, spoken: pa.Table, rows: np.ndarray, to: int | str | None) -> pa.Table:
    """Add a step to what was said, unless all of it was said before; "found" concerns objects that were corrected."""
    manifest, settled = read_clusters_manifest(folder), settle_corrections(spoken)
    if to == FOUND:
        rows, target = rows[np.isin(rows, list(settled))], FOUND_CLUSTER
    elif to == NEW:  # said twice, it is the cluster that these objects alone make up
        of_others = {row: cluster for row, cluster in settled.items() if row not in set(rows.tolist())}
        target = count_clusters(of_others, (folder.read_manifest("clusters") or {})["k"])
    else:
        target = _choose_cluster(to, manifest["k"], read_names(folder, manifest))
    if all(settled.get(row) == target for row in rows.tolist()):
        return spoken
    return pa.concat_tables([spoken, make_corrections(folder, 1 + count_steps(folder), rows, target)])


def _choose_cluster(to: int | str | None, k: int, names: ClusterNames) -> int:
    """Return the number of the cluster that `to` calls by number or name."""
    if to == DROPPED:
        return NO_CLUSTER
    # Numbers come before names that look like them: every cluster has a number, and tables show it.
    number = int(to) if isinstance(to, str) and to.isascii() and to.isdecimal() else to
    if isinstance(number, int | np.integer) and not isinstance(number, bool) and 0 <= number < k:
        return int(number)
    if isinstance(to, str) and to in names.classes[1:]:
        return names.find_clusters(names.classes.index(to))[0]
    raise InputError(
        ("--to is missing" if to is None else f"there is no cluster {to!r}")
        + ("." if to is None else suggest_names(str(to), names.classes[1:]))
        + f" Give a number from 0 to {k - 1}, a name, {NEW}, {DROPPED} for what is no object, or {FOUND} to take "
        "corrections back."
    )


def _check_objects(folder: RunFolder, objects: Sequence[int]) -> np.ndarray:
    """Return the rows, (M,) int64, each once; raise InputError for rows that are not there."""
    count = count_shard_rows(folder)
    if not len(objects):
        raise InputError("no objects are given; give their rows, which clusters.csv has in its column object.")
    for one in objects:
        if isinstance(one, bool | np.bool_):
            raise InputError("objects are given by their rows, not by a mask; np.flatnonzero(mask) makes rows of it.")
        if not isinstance(one, int | np.integer) or not 0 <= one < count:
            raise InputError(f"there is no object {one!r}; the objects of this run are the rows 0 to {count - 1}.")
    return np.array(list(dict.fromkeys(int(one) for one in objects)), np.int64)


def _list_rows(rows: np.ndarray) -> str:
    shown = ", ".join(map(str, rows[:_SHOWN_ROWS].tolist()))
    return f": {shown}{', ...' if len(rows) > _SHOWN_ROWS else ''}" if len(rows) else ""


def _write(at: Workplace, now: pa.Table) -> None:
    """Write corrections, then all that follows from them; killed between, the next command makes up for it."""
    folder = at.folder
    before, given = read_clusters_manifest(folder)["k"], dict(read_names(folder, read_clusters_manifest(folder)).given)
    found = (folder.read_manifest("clusters") or {})["k"]
    k = count_clusters(settle_corrections(now), found)
    if k < before and any(cluster >= k for cluster in given):  # names of added clusters that are gone
        kept = {cluster: name for cluster, name in given.items() if cluster < k}
        write_names(folder, {**read_clusters_manifest(folder), "k": k}, kept)
    write_corrections(folder, now)
    manifest = read_clusters_manifest(folder)
    write_shown_tables(folder, read_names(folder, manifest))
    write_cluster_masks(at)
    told = settle_corrections(now)
    objects = "1 object" if len(told) == 1 else f"{len(told)} objects"
    log.info("correct: %s corrected in all, %d clusters", objects, manifest["k"])
