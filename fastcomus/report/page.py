"""The page of the report: filled templates, with scripts and styles beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcomus.report.cluster_cards import ClusterCard
from fastcomus.report.findings import Findings
from fastcomus.report.image_pages import IMAGES_PER_PAGE, Pictures
from fastcomus.report.overview import Overview
from fastcomus.report.scores import ConfusionTable, ScoreTable
from fastcomus.report.script_data import serialise_figure, write_script
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bokeh.plotting import figure

_HERE = Path(__file__).parent
VERSION = "data/version.js"  # read again and again by an open page, which thus learns that there is more
_ASSETS = ("report.css", "report.js", "naming.js", "gallery.js", "live.js", "image_pages.js")


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        found: The run's contents.
        overview: The first part.
        cards: A card per cluster.
        colours: `#rrggbb` by cluster.
        thumbnails: Files by row.
        pictures: The images of the image pages.
        map_objects: Number of objects on the map.
        scores: None where nothing was evaluated.
        confusion: None where no masks were evaluated.
        figures: Bokeh's plots by the id of the element that holds them.
        version: Fingerprint of all that the page shows.
    """

    found: Findings
    overview: Overview
    cards: list[ClusterCard]
    colours: list[str]
    thumbnails: Mapping[int, str]
    pictures: Pictures
    map_objects: int
    scores: ScoreTable | None
    confusion: ConfusionTable | None
    figures: Mapping[str, figure]
    version: str


def write_page(target: RunFolder, page: Page) -> None:
    """Write index.html, its data, scripts and styles, and a copy of Bokeh's script.

    Args:
        target: The folder of the report.
        page: What to show.
    """
    import bokeh

    _copy(Path(bokeh.__file__).parent / "server/static/js/bokeh.min.js", target, "assets/bokeh.min.js")
    for asset in _ASSETS:
        _copy(_HERE / "assets" / asset, target, f"assets/{asset}")
    for name, plot in page.figures.items():
        write_script(target, f"data/{name}.js", f"fastcomus.plots[{json.dumps(name)}]", serialise_figure(plot))
    write_script(target, "data/run.js", "fastcomus.run", _collect_facts(page))
    target.write_text("index.html", _render_html(page))


def _collect_facts(page: Page) -> dict[str, Any]:
    """Collect what the page's scripts need."""
    found = page.found
    return {
        "version": page.version,
        "newestScript": VERSION,
        "clusters": len(page.cards),
        "fingerprint": found.clusters_fingerprint,
        "names": {str(cluster): name for cluster, name in found.names.given.items()},
        "labels": [found.names.get_label(cluster) for cluster in range(len(page.cards))],
        "colours": page.colours,
        "iterations": list(found.iterations),
        "imageFiles": list(page.pictures.files),
        "imagesPerFile": page.pictures.per_file,
        "imagesPerPage": IMAGES_PER_PAGE,
        "images": len(page.pictures.numbers),
    }


def _render_html(page: Page) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f}"
    environment.filters["duration"] = _format_duration
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment.get_template("index.html").render(
        page=page,
        title=Path(page.overview.folder).name or "embeddings",
        overview=page.overview,
        cards=page.cards,
        colours=page.colours,
        names=page.found.names,
        objects=page.found.objects,
        shown=page.pictures.numbers,
    )


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _copy(source: Path, target: RunFolder, name: str) -> None:
    with target.replace_file(name) as path:
        shutil.copyfile(source, path)
