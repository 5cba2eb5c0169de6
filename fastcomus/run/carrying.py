"""Names and corrections of clusters that were put aside, taken over by those that were made in their place."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastcomus.clusters.corrections import carry_corrections, correct_clusters, settle_corrections
from fastcomus.clusters.files import NAMES_FILE, read_clusters, read_found_clusters, read_names, write_names
from fastcomus.clusters.names import DROPPED, carry_names
from fastcomus.errors import InputError
from fastcomus.run.contents import read_clusters_manifest
from fastcomus.store.corrections import FOUND_CLUSTER, read_corrections, write_corrections
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import read_json
from fastcomus.store.shelf import list_kept, make_id

log = logging.getLogger("fastcomus")
_SHOWN_IMAGES = 5
_NOTE = "carry.json"  # whose words are to be taken over; it outlasts a kill


def note_clusters(folder: RunFolder) -> None:
    """Note before clusters are put aside that those made next take over their names and corrections."""
    if manifest := folder.read_manifest("clusters"):
        folder.write_json(_NOTE, {"clusters": make_id(manifest["fingerprint"])})


def carry_words(folder: RunFolder) -> None:
    """Give the present clusters the names and corrections of those that were noted, once."""
    note = folder.resolve_file(_NOTE)
    if not note.exists():
        return
    kept = list_kept(folder).get(str(read_json(note).get("clusters")))
    if kept is not None:
        try:
            _carry(folder, kept)
        except InputError as error:
            log.warning("cluster: names and corrections are not taken over: %s", error)
    folder.remove(_NOTE)


def _carry(folder: RunFolder, kept: RunFolder) -> None:
    manifest, before = read_clusters_manifest(folder), kept.read_manifest("clusters") or {}
    is_same = before.get("source") == manifest["source"]
    if not is_same and not (before.get("images") and manifest["images"]):
        return  # of photographs before and of rows now, or the reverse: nothing tells which object is which
    spoken = read_corrections(kept, folder)
    has_names = kept.resolve_file(NAMES_FILE).exists() and not folder.resolve_file(NAMES_FILE).exists()
    if not has_names and not len(spoken):
        return
    labels = _read_earlier_labels(folder, kept, is_same)
    corrected = settle_corrections(spoken)
    if is_same:  # else the rows are those of other objects, of which only the places in their images are known
        labels = correct_clusters(read_found_clusters(kept), corrected).labels
    if len(spoken):
        _take_over_corrections(folder, spoken, corrected, labels)
    if has_names:
        given = dict(read_names(kept, {**before, "k": max(before["k"], int(labels.max()) + 1)}).given)
        _take_over_names(folder, given, labels)


def _read_earlier_labels(folder: RunFolder, kept: RunFolder, is_same: bool) -> np.ndarray:
    """Return the earlier cluster of each object that is there now, (N,); -1 where it was not there."""
    before = kept.read_table("clusters/clusters.parquet")
    labels = before["found_cluster"].to_numpy()
    if is_same:
        return labels
    earlier: dict[str, list[int]] = defaultdict(list)
    for image, label in zip(before["image"].to_pylist(), labels.tolist(), strict=True):
        earlier[image].append(label)
    now = folder.read_table("clusters/clusters.parquet", ["image"])["image"].to_pylist()
    return np.array([earlier[image].pop(0) if earlier.get(image) else -1 for image in now])


def _take_over_corrections(folder: RunFolder, spoken: pa.Table, corrected: dict[int, int], before: np.ndarray) -> None:
    """Write corrections of the earlier clusters as such of the present ones; of two words about an object the last one.

    Steps are numbered through all clusterings of a run folder, so that it is known which word was the last.
    """
    own, here = read_corrections(folder), read_found_clusters(folder)
    carried = carry_corrections(corrected, before, here.labels, len(here.sizes))
    last, said = _find_last_words(spoken), _find_last_words(own)
    for row, (place, _) in last.items():
        if row not in carried and row in said and spoken["cluster"][place].as_py() == FOUND_CLUSTER:
            carried[row] = FOUND_CLUSTER
    rows = [row for row in carried if last[row][1] > said.get(row, (0, 0))[1]]
    table = spoken.take(pa.array([last[row][0] for row in rows], pa.int64()))
    targets = pa.array([carried[row] for row in rows], pa.int32())
    table = table.set_column(table.schema.get_field_index("cluster"), "cluster", targets)
    table = pa.concat_tables([own, table])
    table = table.take(pc.sort_indices(table, [("step", "ascending")]))
    write_corrections(folder, table)
    log.info("cluster: corrections of %d objects hold on", len(settle_corrections(table)))
    if gone := sorted(set(spoken.filter(pc.less(spoken["object"], 0))["image"].to_pylist())):
        shown = ", ".join(gone[:_SHOWN_IMAGES]) + (", ..." if len(gone) > _SHOWN_IMAGES else "")
        log.warning("cluster: corrections of objects that are no longer found are set aside: %s", shown)


def _find_last_words(spoken: pa.Table) -> dict[int, tuple[int, int]]:
    """Return the place in the table and the step of the last word about each object, by its row."""
    words = enumerate(zip(spoken["object"].to_pylist(), spoken["step"].to_pylist(), strict=True))
    return {row: (place, step) for place, (row, step) in words if row >= 0}


def _take_over_names(folder: RunFolder, given: dict[int, str], before: np.ndarray) -> None:
    """Give new clusters the names that most of their objects had."""
    now = read_clusters(folder).labels
    before = np.where(before < 0, before.max(initial=-1) + 1, before)  # new objects had no name
    carried = carry_names(given, before[now >= 0], now[now >= 0])
    for cluster, (name, share) in carried.items():
        log.info("cluster: %d keeps the name %s, which %.0f %% of its objects had", cluster, name, 100 * share)
    if carried:
        names = {cluster: name for cluster, (name, _) in carried.items()}
        write_names(folder, read_clusters_manifest(folder), names)
    if lost := sorted(set(given.values()) - {name for name, _ in carried.values()}):
        told = ", ".join("what was dropped (-)" if name == DROPPED else name for name in lost)
        log.warning("cluster: no cluster is clearly %s any more; such names stay in the history", told)
