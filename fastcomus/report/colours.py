"""Colours of clusters in the report: far apart, and visible on light and dark backgrounds."""

from __future__ import annotations

import colorsys

import numpy as np

from fastcomus.report.shown_names import ShownNames

# Chosen so that the nearest two differ by 19 in CIELAB, also as people without red or green cones see them.
_FIRST = (
    "#ffd200", "#0000ff", "#87c3d2", "#a51e0f", "#6987f0", "#871e4b", "#f0d278", "#b49669", "#3c3ca5", "#b4e1c3",
    "#785aff", "#96b4ff", "#a57878", "#a52d3c", "#e13c00", "#965a87", "#692d78", "#4b1ec3", "#7869b4", "#ff962d",
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
