"""fit/ in a run folder: what labels many rows, for other processes and machines; gone when all are labelled."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from fastcomus.clusters.assignment import Labeller
from fastcomus.clusters.eigenmaps import Eigenmaps
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.near_rows import NearRows
from fastcomus.config import ClusterConfig
from fastcomus.errors import InputError
from fastcomus.store.run_folder import RunFolder

FIT = "fit"


def write_labeller(folder: RunFolder, labeller: Labeller, fingerprint: str) -> None:
    """Write fit/, from which other processes and machines read a labeller."""
    folder.begin(FIT, fingerprint)
    near, maps = labeller.near, labeller.maps
    arrays = {"rows": near.rows, "order": near.order, "bounds": near.bounds, "lists": near.centres, "mean": near.mean}
    arrays |= {"usual": labeller.usual, "labels": labeller.clusters.labels, "centres": labeller.clusters.centres}
    if maps is not None:
        arrays |= {"eigenmaps": maps.rows, "eigenvalues": maps.eigenvalues}
    for name, array in arrays.items():
        folder.write_array(f"{FIT}/{name}.npy", array)
    facts = {"probes": near.probes, "recall": near.recall, "count": labeller.count, "has_maps": maps is not None}
    folder.finish(FIT, fingerprint, **facts, config=asdict(labeller.config))


def read_labeller(folder: RunFolder) -> Labeller:
    """Read what `write_labeller` wrote."""
    facts = folder.read_manifest(FIT)
    if facts is None:
        raise InputError(f"{folder.path} has no {FIT}/ to label by; start the command again.")

    def read(name: str) -> np.ndarray:
        return folder.read_array(f"{FIT}/{name}.npy")

    rows, order, bounds, lists, mean = (read(name) for name in ("rows", "order", "bounds", "lists", "mean"))
    near = NearRows(rows, order, bounds, lists, mean, facts["probes"], facts["recall"])
    labels, centres = read("labels"), read("centres")
    own = np.zeros(len(labels), np.float32), np.ones(len(labels), bool)  # not looked at
    clusters = Clusters(labels, *own, centres, np.bincount(labels, minlength=len(centres)), own[1])
    maps = Eigenmaps(read("eigenmaps"), read("eigenvalues"), 0.0, 0.0) if facts["has_maps"] else None
    return Labeller(near, facts["count"], clusters, maps, ClusterConfig(**facts["config"]), read("usual"))
