"""The files of clusters and of their names in a run folder: clusters/ and names.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastcomus.clusters.corrections import correct_clusters, count_clusters, settle_corrections
from fastcomus.clusters.names import ClusterNames, name_clusters, number_names
from fastcomus.errors import InputError, suggest_path
from fastcomus.store.columns import make_column, read_column
from fastcomus.store.corrections import read_corrections
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.clusters.eigenmaps import Eigenmaps
    from fastcomus.clusters.labels import Clusters

NAMES_FILE = "names.toml"
_COLUMNS = ("cluster", "found_cluster", "distance", "is_core", "is_fitted", "coarse", "fine")
_HEADER = '# Names of this run\'s clusters by number: equal names merge clusters, "-" drops one.\n'


def write_clusters(
    folder: RunFolder, clusters: Clusters, maps: Eigenmaps | None, images: pa.ChunkedArray | None
) -> None:
    """Write clusters/: clusters.parquet with a row per object, centres and eigenmaps.

    Args:
        folder: The run folder.
        clusters: Of N objects.
        maps: Their eigenmaps, or None for a method without them.
        images: The names of the N objects' images, or None for embeddings without images.
    """
    if maps is not None:
        folder.write_array("clusters/eigenmaps.npy", maps.rows)
        folder.write_array("clusters/eigenvalues.npy", maps.eigenvalues)
    folder.write_array("clusters/centres.npy", clusters.centres)
    columns = {"cluster": clusters.labels, "distance": clusters.distances, "is_core": clusters.is_core}
    columns["is_fitted"] = clusters.is_fitted
    table = pa.table({name: make_column(values) for name, values in columns.items()})
    if images is not None:
        table = table.add_column(0, "image", images)
    folder.write_table("clusters/clusters.parquet", table)


def read_clusters(folder: RunFolder) -> Clusters:
    """Read what `write_clusters` wrote, with the corrections of a person laid over it."""
    return correct_clusters(read_found_clusters(folder), settle_corrections(read_corrections(folder)))


def read_corrected_manifest(folder: RunFolder) -> dict[str, Any] | None:
    """Return the manifest of the clusters, or None.

    Its `k` counts clusters that a person added, and `corrected` is a fingerprint of the clusters with all corrections,
    equal to `fingerprint` where there are none.
    """
    manifest = folder.read_manifest("clusters")
    if manifest is None:
        return None
    corrected = settle_corrections(read_corrections(folder))
    mark = manifest["fingerprint"]
    if corrected:
        mark = compute_fingerprint(clusters=mark, corrections=sorted(corrected.items()))
    return {**manifest, "k": count_clusters(corrected, manifest["k"]), "corrected": mark}


def read_found_clusters(folder: RunFolder) -> Clusters:
    """Read the clusters as they were found, without corrections."""
    from fastcomus.clusters.labels import Clusters

    centres = folder.read_array("clusters/centres.npy")
    table = folder.read_table("clusters/clusters.parquet")
    content = {name: read_column(table[name]) for name in set(table.column_names) & set(_COLUMNS)}
    labels = content.get("found_cluster", content["cluster"])
    return Clusters(
        labels,
        content["distance"],
        content["is_core"],
        centres,
        np.bincount(labels, minlength=len(centres)),
        content.get("is_fitted", np.ones(len(labels), bool)),
        content.get("coarse"),
        content.get("fine"),
    )


def count_objects(folder: RunFolder, clusters: Mapping[str, Any]) -> list[int]:
    """Return the number of objects of each cluster, corrections included; `clusters` is the corrected manifest."""
    found = read_column(folder.read_table("clusters/clusters.parquet", ["cluster"])["cluster"])
    return np.bincount(found[found >= 0], minlength=clusters["k"]).tolist()


def read_eigenmaps(folder: RunFolder) -> Eigenmaps:
    """Read the eigenmaps that `write_clusters` wrote, with their exactness from the stage's manifest."""
    from fastcomus.clusters.eigenmaps import Eigenmaps

    manifest = folder.read_manifest("clusters") or {}
    rows, eigenvalues = (folder.read_array(f"clusters/{name}.npy") for name in ("eigenmaps", "eigenvalues"))
    return Eigenmaps(rows, eigenvalues, manifest["residual"], manifest["orthonormality"])


def write_names(folder: RunFolder, clusters: Mapping[str, Any], given: Mapping[int, str]) -> ClusterNames:
    """Check the names of clusters and write them to names.toml.

    Args:
        folder: The run folder.
        clusters: The manifest of the clusters.
        given: Names by cluster number.

    Returns:
        The classes that the names make.

    Raises:
        InputError: See `name_clusters`.
    """
    import tomli_w

    names = name_clusters(given, clusters["k"])
    table = {str(cluster): name for cluster, name in names.given}
    folder.write_text(NAMES_FILE, _HEADER + tomli_w.dumps({"clusters": clusters["fingerprint"], "names": table}))
    return names


def read_names(folder: RunFolder, clusters: Mapping[str, Any]) -> ClusterNames:
    """Read names.toml; without the file no cluster has a name.

    Args:
        folder: The run folder.
        clusters: The manifest of the clusters.

    Returns:
        The classes that the names make.

    Raises:
        InputError: If the file cannot be read, or its names were given to other clusters.
    """
    file = folder.resolve_file(NAMES_FILE)
    if not file.exists():
        return name_clusters({}, clusters["k"])
    return read_names_file(file, clusters, "mend it, or delete it and name the clusters anew")


def read_names_file(
    file: Path, clusters: Mapping[str, Any], remedy: str = "mend it, or give another file"
) -> ClusterNames:
    """Read a file like names.toml from anywhere.

    Args:
        file: The file.
        clusters: The manifest of the clusters.
        remedy: What an error advises where the file is damaged.

    Returns:
        The classes that the names make.

    Raises:
        InputError: If the file cannot be read, or its names were given to other clusters.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        found = suggest_path(file) or "; give a names.toml, such as the report saves."
        raise InputError(f"there is no file {file}{found}") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a names.toml that can.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); {remedy}.") from error
    table = content.get("names")
    if (
        not isinstance(table, dict)
        or not all(isinstance(name, str) for name in table.values())
        or not isinstance(content.get("clusters"), str)
    ):
        raise InputError(
            f"{file} holds no names: it needs a line clusters = FINGERPRINT and a table [names] of texts, such as the "
            f"report saves; {remedy}."
        )
    if content["clusters"] != clusters["fingerprint"]:
        raise InputError(
            f"the names in {file} were given to other clusters than those that are there now; move it away and name "
            "these with fastcomus name."
        )
    try:
        return name_clusters(number_names(table.items()), clusters["k"])
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
