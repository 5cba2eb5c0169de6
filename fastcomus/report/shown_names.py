"""What clusters are called in the report, and which of them are one."""

from __future__ import annotations

from dataclasses import dataclass

from fastcomus.cluster_names import ClusterNames, default_name


@dataclass(frozen=True)
class ShownNames:
    """The names that a person gave, for a page that shows every cluster, merged and dropped ones too."""

    names: ClusterNames

    @property
    def given(self) -> dict[int, str]:
        """Cluster -> name, "-" where it is dropped; only those that were named."""
        return dict(self.names.given)

    def label(self, cluster: int) -> str:
        """What to call a cluster: its name, or its number."""
        return default_name(cluster) if self.is_dropped(cluster) else self.names.name(cluster)

    def is_dropped(self, cluster: int) -> bool:
        return self.names.class_of_cluster[cluster] == 0

    def first_of(self, cluster: int) -> int:
        """The lowest cluster of the same name: merged clusters go by it."""
        return cluster if self.is_dropped(cluster) else self.names.clusters(self.names.class_of_cluster[cluster])[0]
