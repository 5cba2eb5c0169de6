"""`history`: list the clusters of a run folder with what was made of them, go back to some, or delete some."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

import pyarrow.compute as pc

from fastcomus.clusters.files import read_names
from fastcomus.config import ClusterConfig
from fastcomus.errors import InputError
from fastcomus.run.contents import has_other_objects, read_clusters_manifest
from fastcomus.run.earlier_settings import rewrite_cluster_settings
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.shelf import KEPT, exchange, find_kept, list_kept, list_made_of_clusters, make_id

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class PastClusters:
    """Clusters that were made in a run folder.

    Attributes:
        id: What `--use` and `--delete` call them.
        is_present: Whether commands work with them now.
        made: When, in local time: YYYY-MM-DD HH:MM.
        settings: Those of the clustering that are not the defaults.
        k: Number of clusters.
        objects: Number of objects.
        trained: Number of trained iterations.
        names: Number of clusters that have names.
        size_bytes: Of the clusters and all that was made of them, on disk.
    """

    id: str
    is_present: bool
    made: str
    settings: dict[str, Any]
    k: int
    objects: int
    trained: int
    names: int
    size_bytes: int


def list_history(folder: RunFolder) -> list[PastClusters]:
    """List the present clusters, if any, and then those that were put aside."""
    present = [_describe(folder, True)] if folder.read_manifest("clusters") else []
    return present + [found for one in list_kept(folder).values() if (found := _describe_kept(one)) is not None]


@stage()
def change_history(at: Workplace, use: str, delete: str) -> None:
    """Bring clusters back or delete some; see `Run.history`."""
    if bool(use) == bool(delete):
        raise InputError("give either --use ID or --delete ID; without them fastcomus history lists what there is.")
    present = at.folder.read_manifest("clusters")
    if present and make_id(present["fingerprint"]).startswith(use or delete):
        raise InputError(f"{use or delete} are the clusters that commands work with now; give the id of others.")
    kept = find_kept(at.folder, use or delete)
    if delete:
        at.folder.remove(f"{KEPT}/{kept.path.name}")
        log.info("history: %s is deleted", kept.path.name)
        return
    if _describe_kept(kept) is None:
        raise InputError(f"{kept.path} is damaged; fastcomus history --delete {kept.path.name} removes it.")
    manifest = kept.read_manifest("clusters") or {}
    settings = {"cluster": rewrite_cluster_settings(manifest["config"]), "seed": manifest.get("seed", at.config.seed)}
    exchange(at.folder, manifest["fingerprint"])
    at.remember(with_settings(at.config, settings))
    manifest = read_clusters_manifest(at.folder)
    log.info("history: back at %s, %d clusters", kept.path.name, manifest["k"])
    if has_other_objects(at.folder, manifest):
        log.warning(
            "history: these clusters are of objects that were found before, in other photographs or by other settings; "
            "what needs the objects is refused until embed finds those again"
        )


def _describe_kept(folder: RunFolder) -> PastClusters | None:
    """Describe clusters that were put aside; None, with a word, where they are damaged."""
    try:
        if folder.read_manifest("clusters"):
            return _describe(folder, False)
        told = "it has no manifest"
    except InputError as error:
        told = str(error)
    log.warning("history: %s is damaged and left out: %s", folder.path.name, told)
    return None


def _describe(folder: RunFolder, is_present: bool) -> PastClusters:
    manifest = folder.read_manifest("clusters") or {}
    # Corrections of clusters put aside speak of objects that may be gone; their table knows the added clusters.
    last = pc.max(folder.read_table("clusters/clusters.parquet", ["cluster"])["cluster"]).as_py()
    manifest["k"] = max(manifest["k"], last + 1)
    config, usual = manifest["config"], asdict(ClusterConfig())
    settings = {field.name: config[field.name] for field in fields(ClusterConfig) if field.name in config}
    files = (file for place in list_made_of_clusters(folder) for file in [place, *place.rglob("*")])
    made = datetime.fromtimestamp(folder.resolve_file("clusters/manifest.json").stat().st_mtime)
    return PastClusters(
        make_id(manifest["fingerprint"]),
        is_present,
        f"{made:%Y-%m-%d %H:%M}",
        {name: value for name, value in settings.items() if value != usual[name]},
        manifest["k"],
        manifest["objects"],
        _count_trained(folder),
        len(read_names(folder, manifest).given),
        sum(file.stat().st_size for file in files if file.is_file()),
    )


def _count_trained(folder: RunFolder) -> int:
    """Return the number of trained iterations, also where their masks do not know the last corrections."""
    number = 0
    while folder.read_manifest(f"iteration-{number + 1}"):
        number += 1
    return number
