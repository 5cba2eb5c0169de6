"""`report`: pages for a browser about everything that the run folder holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcomus.clusters.corrections import settle_corrections
from fastcomus.clusters.files import read_clusters, read_names
from fastcomus.config import Config
from fastcomus.errors import InputError
from fastcomus.progress import count
from fastcomus.report.findings import Findings
from fastcomus.report.notebook import render_clusters
from fastcomus.report.shown_names import ShownNames
from fastcomus.run.changed_images import fingerprint_present_sizes, warn_of_changed_images
from fastcomus.run.contents import (
    list_iterations,
    open_image_source,
    read_clustered_rows,
    read_clusters_manifest,
    read_skipped,
)
from fastcomus.run.shown_objects import read_shown_objects
from fastcomus.run.stage import read_stage_seconds, stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.corrections import read_corrections

log = logging.getLogger("fastcomus")


@stage(writes=False)
def report(at: Workplace, *, settings: Mapping[str, Any]) -> Path:
    """Write the report and return its first page, also while another process trains; see `Run.report`."""
    config = with_settings(at.config, {"report": settings})
    found = gather_findings(at, config)
    if found.objects is not None:
        warn_of_changed_images(at.folder, open_image_source(at).root)
    from fastcomus.report.write import write_report  # only now: what it imports takes seconds

    _remember(at, config)
    count(objects=len(found.rows), clusters=len(found.clusters.sizes), images=len(found.image_names))
    return write_report(found, at.backend, at.workers)


def gather_findings(at: Workplace, config: Config) -> Findings:
    """Read what the report shows of a run with clusters."""
    folder, manifest = at.folder, read_clusters_manifest(at.folder)
    names = ShownNames(read_names(folder, manifest))
    rows, objects = read_clustered_rows(folder, manifest), None
    if manifest["images"]:
        source, objects = read_shown_objects(at)
    return Findings(
        folder=folder,
        config=config,
        device=at.backend.device_name,
        notes=tuple((folder.read_state() or {}).get("notes", [])),
        seconds=read_stage_seconds(folder),
        clusters=read_clusters(folder),
        clusters_fingerprint=manifest["fingerprint"],
        corrected_fingerprint=manifest["corrected"],
        corrected=frozenset(settle_corrections(read_corrections(folder))),
        rows=rows,
        objects=objects,
        image_names=source.names if objects else (),
        skipped=tuple(read_skipped(folder).to_pylist()) if objects else (),
        iterations=tuple(list_iterations(folder)) if objects else (),
        names=names,
        images_fingerprint=fingerprint_present_sizes(folder, objects.root) if objects else "",
    )


def render_run(at: Workplace, title: str) -> str:
    """Render the clusters of a run for a notebook, as HTML."""
    manifest = read_clusters_manifest(at.folder)
    objects = read_shown_objects(at)[1] if manifest["images"] else None
    names, max_pixels = ShownNames(read_names(at.folder, manifest)), at.config.embed.max_pixels
    return render_clusters(title, read_clusters(at.folder), names, objects, max_pixels, at.backend)


def _remember(at: Workplace, config: Config) -> None:
    """Remember settings of the report, unless another process writes to the run folder just now."""
    if config == at.config and at.folder.read_state() is not None:
        return
    try:
        with at.hold_folder():
            at.remember(config)
    except InputError:
        log.info("report: another process writes here, so that the settings are not remembered")
