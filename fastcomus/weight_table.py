"""The table of known weights that `fastcomus weights list` and `fastcomus doctor` show."""

from __future__ import annotations

from rich.table import Table

from fastcomus.weight_cache import added_names, cache_folder, is_present
from fastcomus.weight_registry import SOURCES, is_supervised, licence_of


def weight_table() -> Table:
    """One row per network of SOURCES, then per other one whose weights were added."""
    table = Table(title="Weights", title_justify="left")
    table.add_column("name", no_wrap=True)  # as it is given to a command
    for title in ("what", "licence", "human labels", "here"):
        table.add_column(title, overflow="fold")
    for name in [*SOURCES, *(name for name in added_names() if name not in SOURCES)]:
        source = SOURCES.get(name)
        about = source.about if source else "a timm network, added by hand"
        labels, here = ("yes" if answer else "no" for answer in (is_supervised(name), is_present(name)))
        table.add_row(name, about, licence_of(name) or "not known", labels, here)
    table.caption = f"Files lie in {cache_folder()} and the Hugging Face cache. Any other timm name can be fetched too."
    return table
