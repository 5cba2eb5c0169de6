"""Names of clusters in the report, where merged and dropped clusters are shown too."""

from __future__ import annotations

from dataclasses import dataclass

from fastcomus.clusters.names import ClusterNames, make_default_name


@dataclass(frozen=True)
class ShownNames:
    """The names that a person gave, for a page that shows every cluster."""

    names: ClusterNames

    @property
    def given(self) -> dict[int, str]:
        """Names of the clusters that have one, "-" for dropped ones."""
        return dict(self.names.given)

    def get_label(self, cluster: int) -> str:
        """Return the name of a cluster, or its number."""
        return make_default_name(cluster) if self.is_dropped(cluster) else self.names.get_name(cluster)

    def is_dropped(self, cluster: int) -> bool:
        """Tell whether a cluster was made background."""
        return self.names.class_of_cluster[cluster] == 0

    def get_first_cluster(self, cluster: int) -> int:
        """Return the lowest cluster of the same name, which merged clusters share their colour with."""
        if self.is_dropped(cluster):
            return cluster
        return self.names.find_clusters(self.names.class_of_cluster[cluster])[0]
