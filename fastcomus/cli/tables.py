"""Tables for the terminal: the names of clusters, and the weights of networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from fastcomus.networks.cache import get_cache_folder, is_present, list_added_names
from fastcomus.networks.registry import SOURCES, get_licence, is_supervised
from fastcomus.progress import format_estimate

if TYPE_CHECKING:
    import pyarrow as pa

    from fastcomus.clusters.names import ClusterNames
    from fastcomus.run.history import PastClusters
    from fastcomus.run.plan import PlannedStage


_WIDE = 120  # characters, from which tables of five columns read well


def build_name_table(names: ClusterNames, sizes: Sequence[int]) -> Table:
    """Return a table with a row per cluster: its number, number of objects, name and label.

    Args:
        names: Of the clusters.
        sizes: Number of objects of each cluster, (k,).
    """
    table = Table("cluster", "objects", "name", "label")
    for column in (0, 1, 3):
        table.columns[column].justify = "right"
    named = dict(names.given)
    for cluster, size in enumerate(sizes):
        label = names.class_of_cluster[cluster]
        shown = Text(names.get_name(cluster) if label else "dropped", style="" if cluster in named and label else "dim")
        table.add_row(str(cluster), str(size), shown, str(label))
    table.caption = (
        f"{len(names.classes) - 1} classes. Labels are those that predict and export write; the masks of an "
        "iteration keep the number of the cluster + 1."
    )
    return table


def build_correction_table(corrections: pa.Table, names: ClusterNames) -> Table:
    """Return a table with a row per word about an object, the last one last."""
    table = Table("step", "object", "image", "belongs to")
    for column in (0, 1):
        table.columns[column].justify = "right"
    for row in corrections.to_pylist():
        cluster = row["cluster"]
        target = f"{cluster} {names.get_name(cluster)}" if cluster >= 0 else row["correction"]
        gone = Text("gone", style="dim") if row["object"] < 0 else Text(str(row["object"]))
        table.add_row(str(row["step"]), gone, Text(row["image"]), Text(target))
    table.caption = (
        "fastcomus train learns them; --undo takes back the last step."
        if len(corrections)
        else "No corrections yet: fastcomus correct OBJECT... --to CLUSTER, or fastcomus view in a browser."
    )
    return table


def build_history_table(history: Sequence[PastClusters]) -> Table:
    """Return a table with a row for each clustering of a run folder, the present one first."""
    table = Table("id and time", "clusters", "objects", "trained", "names", "MB", "settings", show_lines=True)
    table.columns[0].min_width = 16  # of a time
    for column in range(1, 6):
        table.columns[column].justify = "right"
    for one in history:
        settings = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in one.settings.items())
        counts = (one.k, one.objects, one.trained, one.names, f"{one.size_bytes / 1e6:.1f}")
        lines = [one.id, *(["(present)"] if one.is_present else []), one.made]
        table.add_row("\n".join(lines), *map(str, counts), Text(settings or "--k auto"))
    table.caption = (
        "--use ID goes back to clusters and all that was made of them: networks, masks, names, corrections, scores, "
        "exports, the report. --delete ID deletes all of it."
    )
    return table


def build_plan_table(stages: Sequence[PlannedStage]) -> Table:
    """Return a table with a row per stage: what would be done, what is there, and about how long it takes."""
    table = Table("stage", "would do", "is there", "about")
    for one in stages:
        about = "" if not one.work else "not known" if one.seconds is None else format_estimate(one.seconds)
        table.add_row(one.stage, one.work or "nothing", one.kept, about)
    table.caption = "Times are those of the preset offline on two cores without a GPU. Nothing was done."
    return table


def build_weight_table(width: int) -> Table:
    """Return a table with a row per network of `SOURCES`, then per other network whose weights were added.

    Args:
        width: Of the terminal, in characters; in a narrow one, what a network is stands below its name.
    """
    is_narrow = width < _WIDE
    names = [*SOURCES, *(name for name in list_added_names() if name not in SOURCES)]
    table = Table(title="Weights", title_justify="left", show_lines=is_narrow)
    table.add_column("name", min_width=max(map(len, names)))  # so that it can be copied into a command
    for title in ("licence", "human labels", "here") if is_narrow else ("what", "licence", "human labels", "here"):
        table.add_column(title, overflow="fold", max_width=14 if is_narrow else None)
    for name in names:
        source = SOURCES.get(name)
        about = source.about if source else "a timm network, added by hand"
        labels, here = ("yes" if answer else "no" for answer in (is_supervised(name), is_present(name)))
        called = (f"{name}\n  {about}",) if is_narrow else (name, about)
        table.add_row(*called, get_licence(name) or "not known", labels, here)
    table.caption = (
        f"Files lie in {get_cache_folder()} and the Hugging Face cache. Any other timm name can be fetched too."
    )
    table.caption_justify = "left"
    return table
