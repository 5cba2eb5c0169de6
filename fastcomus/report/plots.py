"""Plots of the report by Bokeh, for light and dark pages: training curves, IoU against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bokeh.plotting import figure

TEXT = "#7b838c"
_LINES = ("#1c7ed6", "#f58231", "#0ca678", "#e64980", "#9775fa")


def plot_training_curve(curves: Mapping[int, Sequence[Mapping[str, float]]], column: str, title: str) -> figure:
    """Plot a column of training.csv against the epoch, a line per iteration.

    Args:
        curves: Lines of training.csv by iteration.
        column: Name of the column.
        title: Of the vertical axis.

    Returns:
        The plot.
    """
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    plot = figure(height=280, sizing_mode="stretch_width", tools="", x_axis_label="epoch", y_axis_label=title)
    for place, (iteration, lines) in enumerate(curves.items()):
        colour = _LINES[place % len(_LINES)]
        data = {"epoch": [line["epoch"] for line in lines], "value": [line[column] for line in lines]}
        data["iteration"] = [iteration] * len(lines)
        plot.line("epoch", "value", source=data, color=colour, line_width=2, legend_label=f"iteration {iteration}")
        plot.scatter("epoch", "value", source=data, color=colour, size=6, legend_label=f"iteration {iteration}")
    tooltips = [("iteration", "@iteration"), ("epoch", "@epoch"), (title, "@value{0.0000}")]
    plot.add_tools(HoverTool(tooltips=tooltips))
    longest = max(len(lines) for lines in curves.values())
    plot.xaxis.ticker = list(range(1, longest + 1)) if longest <= 20 else plot.xaxis.ticker
    plot.legend.location = "top_right" if column == "loss" else "bottom_right"
    return style_plot(plot)


def plot_iou_against_size(names: Sequence[str], shares: Sequence[float], ious: Sequence[float]) -> figure:
    """Plot the IoU of classes against their size, on a logarithmic axis.

    Args:
        names: Of the classes.
        shares: Mean share of an image that each class takes, in (0, 1].
        ious: IoU of each class, in [0, 1].

    Returns:
        The plot.
    """
    from bokeh.models import HoverTool, Range1d
    from bokeh.plotting import figure

    plot = figure(
        height=340, sizing_mode="stretch_width", tools="", x_axis_type="log", y_range=Range1d(start=-0.03, end=1.03),
        x_axis_label="mean share of the image, %", y_axis_label="IoU",
    )  # fmt: skip
    data = {"share": [100 * share for share in shares], "iou": list(ious), "name": list(names)}
    plot.scatter("share", "iou", source=data, size=10, color=_LINES[0], alpha=0.85)
    plot.text("share", "iou", text="name", source=data, x_offset=8, y_offset=4, text_font_size="12px", text_color=TEXT)
    plot.add_tools(
        HoverTool(tooltips=[("class", "@name"), ("share of the image", "@share{0.0} %"), ("IoU", "@iou{0.000}")])
    )
    return style_plot(plot)


def style_plot(plot: figure) -> figure:
    """Give a plot a clear background, and grey text and lines; return the same plot."""
    plot.background_fill_alpha = plot.border_fill_alpha = 0
    plot.outline_line_color = None
    plot.toolbar_location = None
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = TEXT
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = plot.axis.minor_tick_line_color = TEXT
    plot.grid.grid_line_color = TEXT
    plot.grid.grid_line_alpha = 0.25
    for legend in plot.legend:
        legend.background_fill_alpha = 0
        legend.border_line_color = None
        legend.label_text_color = TEXT
    return plot
