"""The file names.toml of a run folder: the names of its clusters, and which clusters these were given to."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcomus.cluster_names import ClusterNames, name_clusters, parse_names
from fastcomus.errors import InputError
from fastcomus.run_folder import RunFolder

log = logging.getLogger("fastcomus")

NAMES_FILE = "names.toml"
_HEADER = '# Names of this run\'s clusters by number: equal names merge clusters, "-" drops one.\n'


def read_names(folder: RunFolder, clusters: Mapping[str, Any]) -> ClusterNames:
    """The names of the clusters whose manifest is `clusters`; none where there is no names.toml.

    Raises InputError for a file that cannot be read, or whose names were given to other clusters.
    """
    file = folder.file(NAMES_FILE)
    return names_in(file, clusters) if file.exists() else name_clusters({}, clusters["k"])


def write_names(folder: RunFolder, clusters: Mapping[str, Any], given: Mapping[int, str]) -> ClusterNames:
    """Store the names `given` to the clusters whose manifest is `clusters`; InputError for bad ones."""
    import tomli_w

    names = name_clusters(given, clusters["k"])
    table = {str(cluster): name for cluster, name in names.given}
    folder.write_text(NAMES_FILE, _HEADER + tomli_w.dumps({"clusters": clusters["fingerprint"], "names": table}))
    return names


def tell_stale_names(folder: RunFolder, clusters: Mapping[str, Any]) -> None:
    """Warn where `read_names` would refuse the names that are there."""
    try:
        read_names(folder, clusters)
    except InputError as error:
        log.warning("cluster: %s", error)


def names_in(file: Path, clusters: Mapping[str, Any]) -> ClusterNames:
    """The names that `file` gives to the clusters whose manifest is `clusters`; raises as `read_names` does."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); mend it, or delete it and name the clusters anew."
        ) from error
    table = content.get("names")
    if (
        not isinstance(table, dict)
        or not all(isinstance(name, str) for name in table.values())
        or not isinstance(content.get("clusters"), str)
    ):
        raise InputError(
            f"{file} holds no names: it needs a line clusters = FINGERPRINT and a table [names] of texts; "
            "delete it and run fastcomus name CLUSTER=NAME."
        )
    if content["clusters"] != clusters["fingerprint"]:
        raise InputError(
            f"the names in {file} were given to other clusters than those that are there now; move it away and name "
            "these with fastcomus name."
        )
    try:
        return name_clusters(parse_names([f"{cluster}={name}" for cluster, name in table.items()]), clusters["k"])
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
