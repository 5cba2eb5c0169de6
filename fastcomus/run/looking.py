"""The part of `Run` with which a person looks at what was found: pages, names, corrections."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from fastcomus.clusters.corrections import settle_corrections
from fastcomus.clusters.files import read_corrected_manifest, read_names
from fastcomus.errors import InputError
from fastcomus.run.contents import list_iterations
from fastcomus.run.workplace import Workplace
from fastcomus.store.corrections import read_corrections
from fastcomus.store.objects_table import count_shard_rows
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

    from fastcomus.clusters.names import ClusterNames
    from fastcomus.run import keywords
    from fastcomus.run.history import PastClusters

log = logging.getLogger("fastcomus")


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

    def correct(
        self, objects: Sequence[int] | int = (), to: int | str | None = None, *, alike: bool = False, undo: bool = False
    ) -> pa.Table:
        """Say where objects belong; `train`, `export`, `evaluate`, `assign` and clusters made later go by it.

        `predict` does once `train` has learnt it.

        Args:
            objects: Rows of `objects()`, or one of them, which clusters.csv has in its column `object`.
            to: A cluster by number or name, "new" for a cluster of their own, "-" for what is no object, "found" to
                take back all that was said about them.
            alike: Move also what is more like these objects than like its own cluster (see `clusters.alike`), unless
                something was said about it before.
            undo: Take back the last correction instead.

        Returns:
            All corrections, a row each: step, correction, image, box, cluster, object. Without arguments nothing else
            happens.
        """
        from fastcomus.run.correct import correct

        return correct(self.workplace, objects, to, alike=alike, undo=undo)

    def report(self, **settings: Unpack[keywords.ReportSettings]) -> Path:
        """Write pages for a browser and return the first; takes the settings of `config.ReportConfig`.

        It only reads what other commands made, and may run while another process trains.
        """
        from fastcomus.run.report import report

        return report(self.workplace, settings=settings)

    def history(self, use: str = "", delete: str = "") -> list[PastClusters]:
        """List the clusters made in this run folder: the present ones, then those put aside by other settings.

        Args:
            use: Id of clusters to go back to, with all that was made of them: networks, masks, names, corrections,
                scores, exports, the report.
            delete: Id of clusters to delete, with all of that.
        """
        from fastcomus.run.history import change_history, list_history

        if use or delete:
            change_history(self.workplace, use, delete)
        return list_history(self.workplace.folder)

    def __repr__(self) -> str:
        """Say what the run holds."""
        return f"Run({str(self.workplace.folder.path)!r}: {describe_run(self.workplace.folder)})"

    def _repr_html_(self) -> str:
        """Show the clusters in a notebook."""
        from html import escape

        try:
            from fastcomus.run.report import render_run

            return render_run(self.workplace, repr(self))
        except InputError:  # nothing to show yet
            return f"<p>{escape(repr(self))}</p>"

    def _refresh_report(self) -> None:
        """Write the report anew, if there is one already; what prevents it is told and ends nothing."""
        if self.workplace.processes.is_first and self.workplace.folder.resolve_file("report/index.html").exists():
            try:
                self.report()
            except InputError as error:
                log.warning("report: %s", error)


def describe_run(folder: RunFolder) -> str:
    """Return what a run folder holds, in a few words."""
    try:
        clusters = read_corrected_manifest(folder)
        if clusters is None:
            objects = folder.read_manifest("objects")
            return f"{count_shard_rows(folder)} objects, no clusters" if objects else "empty"
        parts = [f"{clusters['objects']} objects", f"{clusters['k']} clusters"]
        if named := len(read_names(folder, clusters).given):
            parts.append(f"{named} named")
        if corrected := len(settle_corrections(read_corrections(folder))):
            parts.append(f"{corrected} objects corrected")
        if clusters["images"] and (trained := len(list_iterations(folder)) - 1):
            parts.append(f"{trained} iterations trained")
        return ", ".join(parts)
    except InputError as error:
        return str(error)
