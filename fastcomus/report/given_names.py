"""The names that a person gave to the clusters, as far as the report shows them."""

from __future__ import annotations

import logging
import tomllib
from dataclasses import dataclass

from fastcomus.errors import InputError
from fastcomus.run_folder import RunFolder

log = logging.getLogger("fastcomus")

FILE = "names.toml"
DROPPED = "-"


@dataclass(frozen=True)
class GivenNames:
    """`names`: cluster -> name; "-" drops a cluster, equal names merge."""

    names: dict[int, str]

    def label(self, cluster: int) -> str:
        """What to call a cluster: its name, or its number."""
        name = self.names.get(cluster, "")
        return name if name and name != DROPPED else f"cluster {cluster}"

    def is_dropped(self, cluster: int) -> bool:
        return self.names.get(cluster) == DROPPED

    def first_of(self, cluster: int) -> int:
        """The lowest cluster of the same name: merged clusters go by it."""
        name = self.names.get(cluster)
        if not name or name == DROPPED:
            return cluster
        return min(other for other, its_name in self.names.items() if its_name == name)


def read_given_names(folder: RunFolder, clusters_fingerprint: str, count: int) -> GivenNames:
    """Those in names.toml of the run folder; none where the file is absent or of other clusters (said in the log).

    Raises InputError for a file that is not to be understood.
    """
    file = folder.file(FILE)
    if not file.exists():
        return GivenNames({})
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); save it again from the report, or delete it.") from error
    given = content.get("names")
    valid = isinstance(given, dict) and all(
        key.isdecimal() and int(key) < count and isinstance(name, str) for key, name in given.items()
    )
    if content.get("clusters") != clusters_fingerprint:
        log.warning("report: %s names other clusters than these and is left out", file)
        return GivenNames({})
    if not isinstance(given, dict) or not valid:
        raise InputError(f"{file} must have a table [names] of clusters 0 to {count - 1} with texts; delete it.")
    return GivenNames({int(key): name for key, name in sorted(given.items(), key=lambda pair: int(pair[0]))})
