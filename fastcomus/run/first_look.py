"""A report on quick clusters of the fastest prior's objects, while the folder has not taught its network yet."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import suppress

from fastcomus.errors import InputError, get_first_line
from fastcomus.images.found import ImageList
from fastcomus.objects.saliency.methods import AUTO
from fastcomus.run.judged_objects import ALWAYS_SEVERAL, ONE
from fastcomus.run.own_network import FASTEST_PRIOR, has_to_teach, mark_saliency
from fastcomus.run.workplace import Workplace
from fastcomus.settings import to_dict, with_settings
from fastcomus.store.folder import UNFINISHED
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")
_MOST_IMAGES = 200  # some 20 s of two cores
_FOLDER = f"first-look{UNFINISHED}"  # of its own stages, removed at the end or by the next command


def write_first_look(found: ImageList, at: Workplace) -> None:
    """Write the report on clusters of some photographs, whose objects `background-prior` finds; keep nothing else.

    Only where the folder teaches a network before the first objects are found. What goes wrong after the
    objects were found is told and ends nothing; before that, it would end `embed` as well.

    Args:
        found: The images of the run.
        at: The run; its folder is held by this process.
    """
    own, folder = at.config.embed, at.folder
    if own.saliency != AUTO or own.masks or len(found.names) < at.config.saliency.least_images:
        return
    if at.processes.size > 1 or any(folder.path.glob("objects/part-*.parquet")):
        return
    mark = mark_saliency(found, at.config)
    shown = compute_fingerprint(first_look=mark, config=to_dict(at.config))
    if not has_to_teach(mark, folder) or folder.is_current("report", shown):
        return
    # Only now, since what these import takes seconds.
    from fastcomus.report.write import write_report
    from fastcomus.run.cluster import cluster
    from fastcomus.run.embed import embed
    from fastcomus.run.report import gather_findings
    from fastcomus.run.saliency_network import select_teachers

    folder.remove(_FOLDER)
    objects = own.objects if own.objects == ALWAYS_SEVERAL else ONE  # a verdict takes longer
    quick = {"saliency": {"max_images": _MOST_IMAGES}, "embed": {"saliency": FASTEST_PRIOR, "objects": objects}}
    look = at.open_beside(folder.path / _FOLDER, with_settings(at.config, quick))
    some = select_teachers(found, look.config)
    told = f"{len(some.names)} of {len(found.names)} photographs, their objects found by {FASTEST_PRIOR}"
    log.info("first look: %s; all follow, better outlined", told)
    try:
        embed(look, some, engine="local", address="", settings={})
        at.remember(at.config)  # a folder with a report is one of a run
        try:
            cluster(look, None, settings={})
            findings = dataclasses.replace(gather_findings(look, look.config), first_look=told)
            write_report(findings, at.backend, at.workers, folder, shown)
        except Exception as error:
            log.warning("first look: none, since %s", get_first_line(error))
    finally:
        with suppress(InputError):  # else the next command removes it
            folder.remove(_FOLDER)
