"""`name`: give clusters names, merge them by equal names, drop them; also while another process trains."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fastcomus.clusters.files import read_names, read_names_file, write_names
from fastcomus.clusters.names import ClusterNames
from fastcomus.clusters.shown_tables import write_shown_tables
from fastcomus.errors import InputError
from fastcomus.run.contents import check_source, read_clusters_manifest
from fastcomus.run.workplace import Workplace
from fastcomus.store.objects_table import read_objects_fingerprint

log = logging.getLogger("fastcomus")


def name(at: Workplace, names: Mapping[int, str | None] | Path | str | None = None) -> ClusterNames:
    """Lay names over those that are there, or take all from a file; see `Run.name`."""
    clusters = read_clusters_manifest(at.folder)
    if not names:
        return read_names(at.folder, clusters)  # also while another process writes to the folder
    if clusters["images"]:  # else names would stand beside other objects
        check_source(at.folder, clusters, read_objects_fingerprint(at.folder))
    with at.folder.writer.hold_names() as is_sole:
        if isinstance(names, Mapping):
            _check_numbers(names)
            laid = {**dict(read_names(at.folder, clusters).given), **names}
            given = {cluster: name for cluster, name in laid.items() if name is not None}
        else:
            given = dict(read_names_file(Path(names), clusters).given)
            _tell_lost_names(dict(read_names(at.folder, clusters).given), given)
        written = write_names(at.folder, clusters, given)
        if is_sole:  # else the process that trains does so at its end
            write_shown_tables(at.folder, written)
        return written


def _check_numbers(names: Mapping[int, str | None]) -> None:
    for cluster in names:
        if not isinstance(cluster, int | np.integer) or isinstance(cluster, bool):
            raise InputError(f"clusters are called by their numbers, as in {{3: 'cat'}}; got {cluster!r}.")


def _tell_lost_names(before: Mapping[int, str], now: Mapping[int, str]) -> None:
    lost = [shlex.quote(f"{cluster}={name}") for cluster, name in before.items() if cluster not in now]
    if lost:
        log.warning(
            "name: %s no name in this file and none any more; fastcomus name %s gives back what was there",
            "1 cluster has" if len(lost) == 1 else f"{len(lost)} clusters have",
            " ".join(lost),
        )
