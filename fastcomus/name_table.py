"""The names of the clusters as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fastcomus.cluster_names import ClusterNames


def name_table(names: ClusterNames, sizes: Sequence[int]) -> Table:
    """A row per cluster: its number, its objects (`sizes`, (k,)), its name and the label of its class."""
    table = Table("cluster", "objects", "name", "label")
    for column in (0, 1, 3):
        table.columns[column].justify = "right"
    named = dict(names.given)
    for cluster, size in enumerate(sizes):
        label = names.class_of_cluster[cluster]
        shown = Text(names.name(cluster) if label else "dropped", style="" if cluster in named and label else "dim")
        table.add_row(str(cluster), str(size), shown, str(label))
    table.caption = (
        f"{len(names.classes) - 1} classes. Labels are those that predict and export write; the masks of an "
        "iteration keep the number of the cluster + 1."
    )
    return table
