"""The report: one folder with a page that opens from disk, without a server and without a network."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from fastcomus.backends import Backend
from fastcomus.progress import progress_bar
from fastcomus.report.cluster_cards import cluster_cards
from fastcomus.report.colours import cluster_colours, rgb
from fastcomus.report.embedding_map import map_figure, plane_positions
from fastcomus.report.findings import Findings, FoundObjects
from fastcomus.report.image_files import DrawnImage, draw_images, image_work, thumbnail_file
from fastcomus.report.image_pages import write_image_data
from fastcomus.report.overview import overview
from fastcomus.report.page import Page, write_page
from fastcomus.report.plots import training_curve
from fastcomus.report.samples import images_to_show, objects_of_every_cluster
from fastcomus.report.scores import confusion_table, score_table, size_plot
from fastcomus.report.shown_names import ShownNames
from fastcomus.run_folder import RunFolder, file_digest, fingerprint

__all__ = ["Findings", "FoundObjects", "ShownNames", "write_report"]

log = logging.getLogger("fastcomus")

_LOOK = 1  # raised when what the report writes changes, so that old ones are made again


def write_report(found: Findings, backend: Backend, workers: int) -> Path:
    """Write the folder report of the run unless it is up to date; where its page lies."""
    stage, index = _fingerprint(found), found.folder.file("report/index.html")
    if found.folder.is_current("report", stage):
        log.info("report: up to date, %s", index)
        return index
    found.folder.begin("report", stage)
    target = RunFolder(found.folder.file("report"))
    settings, clusters = found.config.report, found.clusters
    colours = cluster_colours(len(clusters.sizes), found.names)
    cards = cluster_cards(found.rows, clusters, settings.samples)
    on_map = objects_of_every_cluster(clusters.labels, settings.map_objects, found.config.seed)
    on_cards = [row for card in cards for row in (*card.core, *card.filtered)]
    images = _draw(found, [*on_cards, *on_map.tolist()], on_cards, colours, target, backend, workers)
    pictures = write_image_data(target, images, len(found.iterations))

    log.info("report: placing %d objects on the map", len(on_map))
    has_thumbnail = {row for image in images if not image.error for row in image.work.objects}
    in_images = found.objects.images if found.objects else None
    figures = {
        "map": map_figure(
            plane_positions(found.rows[on_map], found.config.seed, workers),
            clusters.labels[on_map],
            colours,
            [found.names.label(cluster) for cluster in range(len(clusters.sizes))],
            [in_images[row] if in_images else f"row {row}" for row in on_map],
            [thumbnail_file(row) if row in has_thumbnail else "" for row in on_map],
        )
    }
    evaluations, curves = found.evaluations(), found.training_curves()
    if curves:
        figures["loss"] = training_curve(curves, "loss", "loss")
        figures["agreement"] = training_curve(curves, "agreement", "agreement with the labels")
    if (sizes := size_plot(evaluations)) is not None:
        figures["sizes"] = sizes
    page = Page(
        found=found,
        overview=overview(found, curves),
        cards=cards,
        colours=colours,
        thumbnails={row: thumbnail_file(row) for row in has_thumbnail},
        pictures=pictures,
        map_objects=len(on_map),
        scores=score_table(evaluations),
        confusion=confusion_table(evaluations, found.names),
        figures=figures,
    )
    write_page(target, page)
    found.folder.finish("report", stage)
    log.info("report: open %s", index)
    return index


def _draw(
    found: Findings,
    objects: list[int],
    on_cards: list[int],
    colours: list[str],
    target: RunFolder,
    backend: Backend,
    workers: int,
) -> list[DrawnImage]:
    if found.objects is None:
        return []
    first = list(dict.fromkeys(found.objects.images[row] for row in on_cards))
    shown = images_to_show(found.image_names, first, found.config.report.shown_images)
    work = image_work(sorted(set(objects)), found.objects.images, {name: number for number, name in enumerate(shown)})
    with progress_bar("report", len(work), "images") as advance:
        drawn = list(draw_images(work, found, rgb(colours), target, backend, workers, advance))
    for image in drawn:
        if image.error:
            log.warning("report: left out %s: %s", image.work.name, image.error)
    return drawn


def _fingerprint(found: Findings) -> str:
    stages = ["objects", "clusters", *(f"iteration-{iteration}" for iteration in found.iterations)]
    scores = (found.folder.file(f"evaluation/iteration-{iteration}.json") for iteration in found.iterations)
    return fingerprint(
        look=_LOOK,
        config=asdict(found.config),
        device=found.device,
        stages=[(found.folder.manifest(stage) or {}).get("fingerprint") for stage in stages],
        scores=[file_digest(file) for file in scores if file.exists()],
        names=found.names.given,
    )
