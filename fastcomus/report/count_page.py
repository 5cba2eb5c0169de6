"""The page of suggest-k: the number of clusters by each criterion, and the curves behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastcomus.clusters.count import SuggestedCounts
from fastcomus.clusters.granularity import Granularity
from fastcomus.report.level_pictures import ShownStep
from fastcomus.report.plots import style_plot
from fastcomus.report.script_data import format_script, serialise_figure
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bokeh.plotting import figure

_TEMPLATE = Path(__file__).parent / "templates/count.html"
_CURVE, _MARK = "#1c7ed6", "#e8590c"
_MEANINGS = {
    "mixing": "fine communities, joined while two of them mix",
    "modularity": "the k whose clusters have the highest modularity",
    "eigengap": "the largest step in the eigenvalues",
}


def write_count_page(
    folder: RunFolder, suggested: SuggestedCounts, chosen: str, levels: Mapping[str, Sequence[ShownStep]]
) -> Path:
    """Write suggest-k/index.html into the run folder, one file with scripts and plots in it.

    Args:
        folder: The run folder.
        suggested: The suggested numbers.
        chosen: The criterion that `--k auto` uses.
        levels: What coarser and finer clusters join and split, as `draw_levels` draws it.

    Returns:
        Where the page lies.
    """
    from bokeh.resources import Resources
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    plots = {}
    if suggested.tried:
        plots = {"modularity": plot_modularity(suggested), "eigenvalues": plot_eigenvalues(suggested)}
    if suggested.granularity and suggested.granularity.tried:
        plots["mixing"] = plot_mixing(suggested.granularity, suggested.counts["mixing"])
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template(_TEMPLATE.name).render(
        counts=suggested.counts, granularity=suggested.granularity, meanings=_MEANINGS, chosen=chosen,
        objects=suggested.objects, levels=levels, numbers=suggested.levels.count(),
        bokeh=Resources(mode="inline", components=["bokeh"]).render_js() if plots else "",
        data=format_script("const plots", {name: serialise_figure(plot) for name, plot in plots.items()}),
    )  # fmt: skip
    folder.write_text("suggest-k/index.html", text)
    return folder.resolve_file("suggest-k/index.html")


def plot_modularity(suggested: SuggestedCounts) -> figure:
    """Plot modularity against k; a flat top means that the data do not decide on a number."""
    plot = _make_plot("number of clusters k", "modularity of the clusters")
    plot.line(suggested.tried, suggested.modularities, line_width=2, color=_CURVE)
    plot.scatter(suggested.tried, suggested.modularities, size=5, color=_CURVE)
    best = suggested.counts["modularity"]
    marked = [suggested.modularities[suggested.tried.index(best)]]
    plot.scatter([best], marked, size=12, color=_MARK, legend_label=f"highest: {best}")
    plot.legend.location = "bottom_right"
    return style_plot(plot)


def plot_mixing(granularity: Granularity, count: int) -> figure:
    """Plot how much the two clusters that mix most do so, against the number of clusters."""
    plot = _make_plot("number of clusters k", "mixing of the two that mix most")
    plot.line(granularity.tried, granularity.mixing, line_width=2, color=_CURVE)
    plot.scatter(granularity.tried, granularity.mixing, size=5, color=_CURVE)
    _draw_vertical_line(plot, count, _MARK, f"found: {count}")
    plot.legend.location = "bottom_right"
    return style_plot(plot)


def plot_eigenvalues(suggested: SuggestedCounts) -> figure:
    """Plot eigenvalues of the Laplacian; k well separated clusters give k small ones, then a step."""
    plot = _make_plot("eigenvector", "eigenvalue of the normalised Laplacian")
    places = list(range(1, len(suggested.eigenvalues) + 1))
    plot.line(places, suggested.eigenvalues, line_width=2, color=_CURVE)
    plot.scatter(places, suggested.eigenvalues, size=5, color=_CURVE)
    gap = suggested.counts["eigengap"]
    _draw_vertical_line(plot, gap + 0.5, _MARK, f"largest step: after {gap}")
    plot.legend.location = "bottom_right"
    return style_plot(plot)


def _make_plot(across: str, up: str) -> figure:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    plot = figure(height=340, sizing_mode="stretch_width", tools="", x_axis_label=across, y_axis_label=up)
    plot.add_tools(HoverTool(tooltips=[(across, "@x"), (up, "@y{0.0000}")]))
    return plot


def _draw_vertical_line(plot: figure, place: float, colour: str, label: str) -> None:
    """Draw a dashed line over the whole height."""
    plot.vspan(x=[place], line_color=colour, line_dash="dashed", line_width=2, legend_label=label)
