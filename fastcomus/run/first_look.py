"""A report within half a minute, on clusters of the fastest prior's objects, while the folder teaches its network."""

from __future__ import annotations

import dataclasses
import logging

from fastcomus.errors import InputError
from fastcomus.images.found import ImageList
from fastcomus.objects.saliency.methods import AUTO
from fastcomus.run.own_network import FASTEST_PRIOR
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.folder import UNFINISHED
from fastcomus.store.run_folder import RunFolder

log = logging.getLogger("fastcomus")
_MOST_IMAGES = 200  # some 20 s of two cores
_FOLDER = f"first-look{UNFINISHED}"  # of its own stages, removed at the end or by the next command


def write_first_look(found: ImageList, at: Workplace) -> None:
    """Write the report on clusters of some photographs, whose objects `background-prior` finds; keep nothing else.

    Only where the first objects take minutes, since the folder teaches a network first, and there is no report yet.
    What goes wrong here is told and ends nothing.

    Args:
        found: The images of the run.
        at: The run; its folder is held by this process.
    """
    if not _is_wanted(found, at):
        return
    # Only now, since what these import takes seconds.
    from fastcomus.report.write import write_report
    from fastcomus.run.cluster import cluster
    from fastcomus.run.embed import embed
    from fastcomus.run.report import gather_findings
    from fastcomus.run.saliency_network import check_backbones, select_teachers

    check_backbones(at.config)
    at.remember(at.config)
    at.folder.remove(_FOLDER)
    quick = {"saliency": {"max_images": _MOST_IMAGES}, "embed": {"saliency": FASTEST_PRIOR}}
    look = at.open_beside(at.folder.path / _FOLDER, with_settings(at.config, quick))
    some = select_teachers(found, look.config)
    told = f"{len(some.names)} of {len(found.names)} photographs, their objects found by {FASTEST_PRIOR}"
    log.info("first look: %s; all follow, better outlined", told)
    try:
        embed(look, some, engine="local", address="", settings={})
        cluster(look, None, settings={})
        findings = dataclasses.replace(gather_findings(look, look.config), folder=at.folder, first_look=told)
        write_report(findings, at.backend, at.workers)
    except InputError as error:
        log.info("first look: none, since %s", error)
    finally:
        at.folder.remove(_FOLDER)


def _is_wanted(found: ImageList, at: Workplace) -> bool:
    own, folder = at.config.embed, RunFolder(at.folder.path)
    if own.saliency != AUTO or own.masks or len(found.names) < at.config.saliency.least_images:
        return False
    there = ("report/manifest.json", "objects/part-*.parquet", "saliency/network-*.safetensors")
    return at.processes.size == 1 and not any(any(folder.path.glob(one)) for one in there)
