"""clusters.parquet with names and corrections, and the same as clusters.csv, for people with a spreadsheet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from fastcomus.clusters.corrections import count_clusters, settle_corrections
from fastcomus.clusters.names import ClusterNames
from fastcomus.store.columns import make_column, make_text_column, read_column
from fastcomus.store.corrections import MOVED, NOT_AN_OBJECT, read_corrections
from fastcomus.store.run_folder import RunFolder

TABLE, CSV = "clusters/clusters.parquet", "clusters/clusters.csv"
LEVELS = ("coarse", "fine")  # columns
_MOST_ROWS = 1_048_575  # that a spreadsheet takes beside the titles
_ADDED = ("name", "found_cluster", "correction")


def write_shown_tables(folder: RunFolder, names: ClusterNames) -> None:
    """Write names and corrections into clusters.parquet, and clusters.csv beside it; up to date, they stay.

    `cluster` is what holds: the cluster that was found, or what a person made of it; -1 is no object. `found_cluster`
    is the one that was found. `correction` says whose it is: "moved" or "not an object" by a person, else null.
    `distance` and `is_core` stay as they were found.

    Args:
        folder: The run folder.
        names: Of the clusters.
    """
    table = folder.read_table(TABLE)
    found = read_column(table["found_cluster" if "found_cluster" in table.column_names else "cluster"])
    clusters, words = found.copy(), np.zeros(len(found), np.int8)
    corrected = settle_corrections(read_corrections(folder))
    if corrected:
        rows = np.array(list(corrected))
        clusters[rows] = list(corrected.values())
        words[rows] = np.where(clusters[rows] < 0, 2, 1)
    k = count_clusters(corrected, int(found.max(initial=-1)) + 1)
    k = max(k, len(names.class_of_cluster))
    called = make_text_column([*(names.get_name(cluster) for cluster in range(k)), NOT_AN_OBJECT])
    kinds = make_text_column([None, MOVED, NOT_AN_OBJECT])
    shown = table.set_column(table.column_names.index("cluster"), "cluster", make_column(clusters))
    shown = shown.drop_columns([name for name in _ADDED if name in table.column_names])
    shown = shown.append_column("name", called.take(make_column(np.where(clusters < 0, k, clusters))))
    shown = shown.append_column("found_cluster", make_column(found))
    shown = shown.append_column("correction", kinds.take(make_column(words)))
    if not shown.equals(table):
        folder.remove(CSV)  # first: killed in between, the next command sees that it is missing
        folder.replace_table("clusters", "clusters.parquet", shown)
        _write_csv(folder, shown)
    elif not folder.resolve_file(CSV).exists():
        _write_csv(folder, shown)


def has_levels(folder: RunFolder) -> bool:
    """Whether coarser or finer clusters stand in clusters.parquet."""
    return not set(LEVELS).isdisjoint(folder.read_table(TABLE).column_names)


def write_levels(folder: RunFolder, coarse: np.ndarray | None, fine: np.ndarray | None) -> None:
    """Write coarser and finer clusters, (N,) int32 each or None, into clusters.parquet; the CSV follows."""
    table = folder.read_table(TABLE)
    for name, labels in zip(LEVELS, (coarse, fine), strict=True):
        if labels is not None:
            table = table.append_column(name, make_column(labels))
    folder.remove(CSV)
    folder.replace_table("clusters", "clusters.parquet", table)


def _write_csv(folder: RunFolder, table: pa.Table) -> None:
    """Write image, cluster, name, distance, core, then what else there is; not for more rows than a sheet takes."""
    if len(table) > _MOST_ROWS:
        folder.remove(CSV)
        return
    titles = {"is_core": "core"}
    first = [name for name in ("image", "cluster", "name", "distance", "is_core") if name in table.column_names]
    rest = [name for name in table.column_names if name not in first]
    shown = table.select([*first, *rest]).rename_columns([titles.get(name, name) for name in (*first, *rest)])
    shown = shown.append_column("object", make_column(np.arange(len(table))))
    with folder.replace_file(CSV) as path:
        pacsv.write_csv(shown, path)
