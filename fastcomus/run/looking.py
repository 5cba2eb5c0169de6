"""The part of `Run` with which a person looks at what was found: pages, names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from fastcomus.run.workplace import Workplace

if TYPE_CHECKING:
    from fastcomus.clusters.names import ClusterNames
    from fastcomus.run import keywords


class Looking:
    """Methods of `Run`."""

    __slots__ = ()
    workplace: Workplace

    def name(self, names: Mapping[int, str] | Path | str | None = None) -> ClusterNames:
        """Give clusters names, and return all; `predict`, `evaluate`, `assign` and `export` go by them.

        Args:
            names: Names by cluster, {3: "cat"}, laid over those that are there, or a names.toml, which replaces them.
                Equal names merge clusters, and "-" drops one into the background. None changes nothing.
        """
        from fastcomus.run.name import name

        return name(self.workplace, names)

    def report(self, **settings: Unpack[keywords.ReportSettings]) -> Path:
        """Write pages for a browser and return the first; takes the settings of `config.ReportConfig`.

        It only reads what other commands made, and may run while another process trains.
        """
        from fastcomus.run.report import report

        return report(self.workplace, settings=settings)

    def _get_refresh(self) -> Callable[[], Path] | None:
        """Return what writes the report anew, if there is one already."""
        return self.report if self.workplace.folder.resolve_file("report/index.html").exists() else None
