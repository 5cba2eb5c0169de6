"""Names that a user gives to clusters: equal names merge clusters into one class, "-" drops one."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastcomus.errors import InputError

DROPPED = "-"
BACKGROUND = "background"
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, surrogates, line ends


@dataclass(frozen=True)
class ClusterNames:
    """The classes that k clusters make under the names given to them.

    Attributes:
        given: The named clusters in ascending order, each with its name or "-".
        classes: C + 1 names, "background" first, the others in the order of their first cluster; a cluster without a
            name is the class "cluster N". Without any names class id c + 1 is cluster c.
        class_of_cluster: k class ids in [0, C]; 0 for a dropped cluster.
    """

    given: tuple[tuple[int, str], ...]
    classes: tuple[str, ...]
    class_of_cluster: tuple[int, ...]

    @property
    def class_of_label(self) -> np.ndarray:
        """Class id by label of a class map (0 background, c + 1 cluster c), (k + 1,) uint16."""
        return np.array([0, *self.class_of_cluster], np.uint16)

    def map_to_classes(self, labels: np.ndarray) -> np.ndarray:
        """Turn a map of clusters, (H, W) in [0, k], into one of class ids, (H, W) uint16; unchanged without names."""
        return self.class_of_label[labels] if self.given else labels

    def get_name(self, cluster: int) -> str:
        """Return the name of a cluster's class; "background" for a dropped cluster."""
        return self.classes[self.class_of_cluster[cluster]]

    def find_clusters(self, class_id: int) -> tuple[int, ...]:
        """Return the clusters that make up a class."""
        return tuple(cluster for cluster, own in enumerate(self.class_of_cluster) if own == class_id)


def carry_names(given: Mapping[int, str], before: np.ndarray, now: np.ndarray) -> dict[int, tuple[str, float]]:
    """Find the names of new clusters of the same objects.

    A new cluster gets a name if at least two thirds of its objects had it; so both parts of a split cluster keep it.

    Args:
        given: Names of the earlier clusters; "-" for a dropped one.
        before: (N,) integers, the earlier cluster of each object.
        now: (N,) integers, its new cluster.

    Returns:
        By new cluster: its name, and the share of its objects that had it, in [2/3, 1].
    """
    names = sorted(set(given.values()))
    place = {cluster: names.index(name) for cluster, name in given.items()}
    name_of = np.array([place.get(cluster, len(names)) for cluster in range(int(before.max()) + 1)])
    counts = np.zeros((int(now.max()) + 1, len(names) + 1), np.int64)
    np.add.at(counts, (now, name_of[before]), 1)
    shares = counts[:, :-1] / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return {
        cluster: (names[int(row.argmax())], float(row.max()))
        for cluster, row in enumerate(shares)
        if row.max() >= 2 / 3
    }


def name_clusters(given: Mapping[int, str], k: int) -> ClusterNames:
    """Make classes of clusters.

    Args:
        given: Names by cluster number; "-" drops a cluster.
        k: Number of clusters.

    Returns:
        The classes.

    Raises:
        InputError: For a number outside [0, k), a name that is empty, not printable, "background" or the default name
            of a cluster without a name, and if every cluster is dropped.
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
    """Parse names such as "3=cat" into {3: "cat"}.

    Args:
        assignments: Texts CLUSTER=NAME.

    Returns:
        Names by cluster number.

    Raises:
        InputError: For other texts, and for a cluster that is named twice.
    """
    for assignment in assignments:
        if assignment.count("=") != 1:
            raise _build_form_error(assignment)
    return number_names((cluster, name) for cluster, _, name in (one.partition("=") for one in assignments))


def number_names(texts: Iterable[tuple[str, str]]) -> dict[int, str]:
    """Turn pairs of a cluster's number, as text, and its name into names by cluster; InputError as by `parse_names`."""
    pairs = []
    for cluster, name in texts:
        if not _is_number(cluster):
            raise _build_form_error(f"{cluster}={name}")
        pairs.append((int(cluster), name))
    twice = [cluster for cluster, count in Counter(cluster for cluster, _ in pairs).items() if count > 1]
    if twice:
        raise InputError(f"cluster {twice[0]} is named twice; give it one name.")
    return dict(pairs)


def make_default_name(cluster: int) -> str:
    """Return the name of the class that a cluster without a name makes."""
    return f"cluster {cluster}"


def _normalise_name(cluster: int, name: str, k: int) -> str:
    """The name without surrounding spaces, in Unicode's composed form, so that names that look equal are equal."""
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


def _build_form_error(got: str) -> InputError:
    return InputError(
        f"names are given as CLUSTER=NAME, such as 3=cat or 9=- to drop one, with one = each; got {got!r}."
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
