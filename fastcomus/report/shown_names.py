"""What clusters are called in the report, and which of them are one."""

from __future__ import annotations

from dataclasses import dataclass

from fastcomus.clusters.names import ClusterNames, make_default_name


@dataclass(frozen=True)
class ShownNames:
    """The names that a person gave, for a page that shows every cluster, merged and dropped ones too."""

    names: ClusterNames

    @property
    def given(self) -> dict[int, str]:
        """Cluster -> name, "-" where it is dropped; only those that were named."""
        return dict(self.names.given)

    def get_label(self, cluster: int) -> str:
        """What to call a cluster: its name, or its number."""
        return make_default_name(cluster) if self.is_dropped(cluster) else self.names.get_name(cluster)

    def is_dropped(self, cluster: int) -> bool:
        return self.names.class_of_cluster[cluster] == 0

    def get_first_cluster(self, cluster: int) -> int:
        """The lowest cluster of the same name: merged clusters go by it."""
        return (
            cluster if self.is_dropped(cluster) else self.names.find_clusters(self.names.class_of_cluster[cluster])[0]
        )
