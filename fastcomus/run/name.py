"""`name`: give clusters names, merge them by equal names, drop them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastcomus.clusters.files import read_names, read_names_file, write_names
from fastcomus.clusters.names import ClusterNames
from fastcomus.run.contents import read_clusters_manifest
from fastcomus.run.workplace import Workplace


def name(at: Workplace, names: Mapping[int, str] | Path | str | None = None) -> ClusterNames:
    """Lay names over those that are there, or take all from a file; see `Run.name`."""
    clusters = read_clusters_manifest(at.folder)
    if not names:
        return read_names(at.folder, clusters)  # also while another process writes to the folder
    with at.folder.writer.hold():
        if isinstance(names, Mapping):
            given = {**dict(read_names(at.folder, clusters).given), **names}
        else:
            given = dict(read_names_file(Path(names), clusters).given)
        return write_names(at.folder, clusters, given)
