"""Colours of clusters in the report: far apart, and visible on light and dark backgrounds."""

from __future__ import annotations

import colorsys

import numpy as np

from fastcomus.report.shown_names import ShownNames

_FIRST = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#22b8cf", "#f032e6", "#9fc131", "#e8891c", "#0ca678",
    "#b197fc", "#a0651a", "#d6b500", "#c2255c", "#5f8f29", "#1c7ed6", "#f783ac", "#748ffc", "#d9480f", "#63859f",
)  # fmt: skip
DROPPED = "#9a9fa6"


def choose_cluster_colours(count: int, names: ShownNames) -> list[str]:
    """Choose a colour per cluster: 20 fixed ones, then hues by the golden ratio.

    Args:
        count: Number of clusters.
        names: Names of the clusters; merged clusters share a colour, and dropped ones are grey.

    Returns:
        `#rrggbb` per cluster.
    """
    return [DROPPED if names.is_dropped(c) else _choose_colour(names.get_first_cluster(c)) for c in range(count)]


def parse_rgb(colours: list[str]) -> np.ndarray:
    """Convert `#rrggbb` strings to (count, 3) uint8."""
    return np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours], np.uint8).reshape(-1, 3)


def _choose_colour(index: int) -> str:
    if index < len(_FIRST):
        return _FIRST[index]
    hue, lightness, saturation = (index * 0.618034) % 1, (0.42, 0.56, 0.66)[index % 3], (0.85, 0.6)[index % 2]
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))
