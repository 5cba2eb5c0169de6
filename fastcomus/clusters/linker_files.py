"""fit/ in a run folder: rows among which neighbours are sought, for other processes and machines; gone at the end."""

from __future__ import annotations

from fastcomus.clusters.assignment import Linker
from fastcomus.clusters.near_rows import NearRows
from fastcomus.errors import InputError
from fastcomus.store.run_folder import RunFolder

FIT = "fit"


def write_linker(folder: RunFolder, linker: Linker, fingerprint: str) -> None:
    """Write fit/, from which other processes and machines read a linker."""
    folder.begin(FIT, fingerprint)
    near = linker.near
    arrays = {"rows": near.rows, "order": near.order, "bounds": near.bounds, "lists": near.centres, "mean": near.mean}
    for name, array in (arrays | {"usual": linker.usual}).items():
        folder.write_array(f"{FIT}/{name}.npy", array)
    facts = {"probes": near.probes, "recall": near.recall, "count": linker.count, "metric": linker.metric}
    folder.finish(FIT, fingerprint, **facts)


def read_linker(folder: RunFolder) -> Linker:
    """Read what `write_linker` wrote."""
    facts = folder.read_manifest(FIT)
    if facts is None:
        raise InputError(f"{folder.path} has no {FIT}/ to find neighbours in; start the command again.")
    names = ("rows", "order", "bounds", "lists", "mean", "usual")
    rows, order, bounds, lists, mean, usual = (folder.read_array(f"{FIT}/{name}.npy") for name in names)
    near = NearRows(rows, order, bounds, lists, mean, facts["probes"], facts["recall"])
    return Linker(near, facts["count"], facts["metric"], usual)
