"""The part of `Run` with which a person looks at what was found: pages, names, corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from fastcomus.run.workplace import Workplace

if TYPE_CHECKING:
    import pyarrow as pa

    from fastcomus.clusters.names import ClusterNames
    from fastcomus.run import keywords


class Looking:
    """Methods of `Run`."""

    __slots__ = ()
    workplace: Workplace

    def name(self, names: Mapping[int, str | None] | Path | str | None = None) -> ClusterNames:
        """Give clusters names, and return all; `predict`, `evaluate`, `assign` and `export` go by them.

        Args:
            names: Names by cluster, {3: "cat"}, laid over those that are there, or a names.toml, which replaces them.
                Equal names merge clusters, "-" drops one into the background, None takes a name away. Without names
                nothing changes.
        """
        from fastcomus.run.name import name

        return name(self.workplace, names)

    def correct(self, objects: Sequence[int] = (), to: int | str | None = None, *, undo: bool = False) -> pa.Table:
        """Say where objects belong; `train`, `predict`, `export`, `evaluate` and clusters made later go by it.

        Args:
            objects: Rows of `objects()`, which clusters.csv has in its column `object`.
            to: A cluster by number or name, "new" for a cluster of their own, "-" for what is no object, "found" to
                take back all that was said about them.
            undo: Take back the last correction instead.

        Returns:
            All corrections, a row each: step, correction, image, box, cluster, object. Without arguments nothing else
            happens.
        """
        from fastcomus.run.correct import correct

        return correct(self.workplace, objects, to, undo=undo)

    def report(self, **settings: Unpack[keywords.ReportSettings]) -> Path:
        """Write pages for a browser and return the first; takes the settings of `config.ReportConfig`.

        It only reads what other commands made, and may run while another process trains.
        """
        from fastcomus.run.report import report

        return report(self.workplace, settings=settings)

    def _get_refresh(self) -> Callable[[], Path] | None:
        """Return what writes the report anew, if there is one already."""
        return self.report if self.workplace.folder.resolve_file("report/index.html").exists() else None
