"""The report: a folder with a page that opens from disk, without a server and without a network."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastcomus.progress import show_progress
from fastcomus.report.cluster_cards import make_cluster_cards
from fastcomus.report.colours import choose_cluster_colours, parse_rgb
from fastcomus.report.embedding_map import plot_embedding_map, project_to_plane
from fastcomus.report.findings import Findings
from fastcomus.report.gallery import compare_objects, write_gallery
from fastcomus.report.image_files import DrawnImage, draw_images, get_thumbnail_file, plan_image_work
from fastcomus.report.image_pages import write_image_data
from fastcomus.report.overview import make_overview
from fastcomus.report.page import VERSION, Page, write_page
from fastcomus.report.page_folder import PageFolder
from fastcomus.report.plots import plot_training_curve
from fastcomus.report.samples import choose_shown_images, sample_every_cluster
from fastcomus.report.scores import build_confusion_table, build_score_table, plot_class_sizes
from fastcomus.report.script_data import write_script
from fastcomus.store.integrity import compute_file_digest
from fastcomus.store.objects_table import read_objects_fingerprint
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

log = logging.getLogger("fastcomus")

_LOOK = 5  # to be raised when the files of the report change, so that older reports are written again


def write_report(
    found: Findings, backend: Backend, workers: int, folder: RunFolder | None = None, fingerprint: str = ""
) -> Path:
    """Write the folder `report` of a run unless it is up to date.

    Args:
        found: The run's contents.
        backend: What decodes the images.
        workers: Number of threads.
        folder: The run folder that gets the report; by default the one whose contents are shown.
        fingerprint: Of all that is shown; by default it is computed.

    Returns:
        Where index.html lies.
    """
    folder, stage = folder or found.folder, fingerprint or _compute_report_fingerprint(found)
    index = folder.resolve_file("report/index.html")
    if folder.is_current("report", stage) and index.exists():
        log.info("report: up to date, %s", index)
        return index
    target = PageFolder(folder.resolve_file("report"))
    with target.refresh(stage):
        _write_pages(found, stage, target, backend, workers)
    log.info("report: open %s", index)
    return index


def _write_pages(found: Findings, stage: str, target: PageFolder, backend: Backend, workers: int) -> None:
    settings, clusters = found.config.report, found.clusters
    colours = choose_cluster_colours(len(clusters.sizes), found.names)
    cards = make_cluster_cards(found.rows, clusters, settings.samples)
    kept = np.flatnonzero(clusters.labels >= 0)  # others are no objects
    on_map = kept[sample_every_cluster(clusters.labels[kept], settings.map_objects, found.config.seed)]
    on_cards = [row for card in cards for row in (*card.core, *card.filtered)]
    in_gallery = kept[sample_every_cluster(clusters.labels[kept], settings.gallery_objects, found.config.seed)]
    drawn_rows = [*on_cards, *in_gallery.tolist()]
    images = _draw(found, drawn_rows, on_cards, colours, target, backend, workers)
    pictures = write_image_data(target, images, len(found.iterations))

    log.info("report: placing %d objects on the map", len(on_map))
    has_thumbnail = {row for image in images if not image.error for row in image.work.objects}
    in_images = found.objects.images if found.objects else None
    figures = {
        "map": plot_embedding_map(
            project_to_plane(found.rows[on_map], found.config.seed, workers),
            clusters.labels[on_map],
            colours,
            [found.names.get_label(cluster) for cluster in range(len(clusters.sizes))],
            [in_images[row] if in_images else f"row {row}" for row in on_map],
            [get_thumbnail_file(row) if row in has_thumbnail else "" for row in on_map],
            on_map.tolist(),
        )
    }
    if found.objects is not None:
        scores = found.objects.masks["score"].to_numpy()
        likeness = compare_objects(found.rows, clusters, found.objects.images, scores, found.config.seed, backend)
        write_gallery(target, found, likeness, has_thumbnail)
    evaluations, curves = found.read_evaluations(), found.read_training_curves()
    if curves:
        figures["loss"] = plot_training_curve(curves, "loss", "loss")
        figures["agreement"] = plot_training_curve(curves, "agreement", "agreement with the labels")
    if (sizes := plot_class_sizes(evaluations)) is not None:
        figures["sizes"] = sizes
    page = Page(
        found=found,
        overview=make_overview(found, curves),
        cards=cards,
        colours=colours,
        thumbnails={row: get_thumbnail_file(row) for row in has_thumbnail},
        pictures=pictures,
        map_objects=len(on_map),
        scores=build_score_table(evaluations),
        confusion=build_confusion_table(evaluations, found.names),
        figures=figures,
        version=stage,
    )
    write_script(target, VERSION, "fastcomus.newest", {"version": stage, "iterations": len(found.iterations)})
    write_page(target, page)


def _draw(
    found: Findings,
    objects: list[int],
    on_cards: list[int],
    colours: list[str],
    target: PageFolder,
    backend: Backend,
    workers: int,
) -> list[DrawnImage]:
    if found.objects is None:
        return []
    first = list(dict.fromkeys(found.objects.images[row] for row in on_cards))
    shown = choose_shown_images(found.image_names, first, found.config.report.shown_images)
    work = plan_image_work(
        sorted(set(objects)), found.objects.images, {name: number for number, name in enumerate(shown)}
    )
    drawn_from = compute_fingerprint(look=_LOOK, objects=read_objects_fingerprint(found.folder), shown=shown)
    with show_progress("report", len(work), "images") as advance, target.draw_pictures(drawn_from):
        drawn = list(draw_images(work, found, parse_rgb(colours), target, backend, workers, advance))
    for image in drawn:
        if image.error:
            log.warning("report: left out %s: %s", image.work.name, image.error)
    return drawn


def _compute_report_fingerprint(found: Findings) -> str:
    stages = ["objects", "clusters", *(f"iteration-{iteration}" for iteration in found.iterations)]
    scores = (found.folder.resolve_file(f"evaluation/iteration-{iteration}.json") for iteration in found.iterations)
    return compute_fingerprint(
        look=_LOOK,
        config=asdict(found.config),
        device=found.device,
        corrected=found.corrected_fingerprint,
        timed=sorted(found.seconds),
        stages=[(found.folder.read_manifest(stage) or {}).get("fingerprint") for stage in stages],
        scores=[compute_file_digest(file) for file in scores if file.exists()],
        names=found.names.given,
        images=found.images_fingerprint,
        root=str(found.objects.root) if found.objects else "",
    )
