"""What a person calls the clusters: equal names merge clusters into one class, "-" drops one into the background."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastcomus.errors import InputError

DROPPED = "-"
BACKGROUND = "background"
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of characters, and line ends


@dataclass(frozen=True)
class ClusterNames:
    """The classes that k clusters make under the names given to them.

    `given`: the clusters that were named, 0 to k - 1, each with its name or "-", by number.
    `classes`: (C + 1) names, "background" first; without names a cluster is the class "cluster N". Classes stand in the
        order of their first cluster, so that without any name class id c + 1 is cluster c.
    `class_of_cluster`: (k,) class id of each cluster, in [0, C]; 0 for one that was dropped.
    """

    given: tuple[tuple[int, str], ...]
    classes: tuple[str, ...]
    class_of_cluster: tuple[int, ...]

    @property
    def class_of_label(self) -> np.ndarray:
        """(k + 1,) uint16: the class id of every label of a class map (0 background, c + 1 cluster c)."""
        return np.array([0, *self.class_of_cluster], np.uint16)

    def map_to_classes(self, labels: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint16 of a class map of clusters (H, W), labels in [0, k]; unchanged without names."""
        return self.class_of_label[labels] if self.given else labels

    def get_name(self, cluster: int) -> str:
        """The class of a cluster by name; "background" for one that was dropped."""
        return self.classes[self.class_of_cluster[cluster]]

    def find_clusters(self, class_id: int) -> tuple[int, ...]:
        """The clusters that make up a class."""
        return tuple(cluster for cluster, own in enumerate(self.class_of_cluster) if own == class_id)


def name_clusters(given: Mapping[int, str], k: int) -> ClusterNames:
    """The classes of k clusters under the names `given`, by cluster number.

    Raises InputError for a cluster that is not there, a name that is empty, not printable, "background" or that of a
    cluster without a name, and when every cluster is dropped.
    """
    names = {cluster: _normalise_name(cluster, name, k) for cluster, name in sorted(given.items())}
    unnamed = {make_default_name(cluster): cluster for cluster in range(k) if cluster not in names}
    for cluster, name in names.items():
        if name in unnamed:
            raise InputError(
                f"the name {name!r} given to cluster {cluster} is that of cluster {unnamed[name]}, which has none of "
                "its own; choose another, or give both the same to merge them."
            )
    ids: dict[str, int] = {}
    class_of_cluster = []
    for cluster in range(k):
        name = names.get(cluster, make_default_name(cluster))
        class_of_cluster.append(0 if name == DROPPED else ids.setdefault(name, len(ids) + 1))
    if k and not ids:
        raise InputError(f"all {k} clusters are dropped, which leaves nothing; keep at least one.")
    return ClusterNames(tuple(names.items()), (BACKGROUND, *ids), tuple(class_of_cluster))


def parse_names(assignments: Sequence[str]) -> dict[int, str]:
    """{3: "cat"} from "3=cat"; InputError for anything else, and for a cluster that comes twice."""
    pairs = []
    for assignment in assignments:
        cluster, equals, name = assignment.partition("=")
        if not equals or not _is_number(cluster):
            raise InputError(f"names are given as CLUSTER=NAME, such as 3=cat or 9=- to drop one; got {assignment!r}.")
        pairs.append((int(cluster), name))
    twice = [cluster for cluster, count in Counter(cluster for cluster, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"cluster {twice[0]} is named twice; give it one name.")
    return dict(pairs)


def make_default_name(cluster: int) -> str:
    return f"cluster {cluster}"


def _normalise_name(cluster: int, name: str, k: int) -> str:
    """Without spaces around it, in Unicode's composed form, so that what looks the same is the same."""
    if not isinstance(cluster, int | np.integer) or not 0 <= cluster < k:
        raise InputError(f"there is no cluster {cluster}; the clusters of this run are 0 to {k - 1}.")
    if not isinstance(name, str):
        raise InputError(f"the name of cluster {cluster} must be text; got {name!r}.")
    shown = unicodedata.normalize("NFC", name).strip()
    if not shown:
        raise InputError(f"the name of cluster {cluster} is empty; give one, or {cluster}={DROPPED} to drop it.")
    bad = next((one for one in shown if unicodedata.category(one) in _UNPRINTABLE), None)
    if bad is not None:
        raise InputError(
            f"the name of cluster {cluster} holds the character {bad!r}, which cannot be shown; leave it out."
        )
    if shown == BACKGROUND:
        raise InputError(
            f"{BACKGROUND!r} is what belongs to no cluster; to drop cluster {cluster} name it {DROPPED}, "
            f"as in {cluster}={DROPPED}."
        )
    return shown


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
