"""Map of the objects: t-SNE of their embeddings, drawn by Bokeh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bokeh.plotting import figure

_DIMENSIONS = 50  # kept by PCA before t-SNE, as its authors advise

# Bokeh puts these values into the page as text, never as HTML.
_TOOLTIP = """
<div class="fastcomus-tooltip" style="width:128px;font:13px system-ui,sans-serif;color:#1c2024">
  <img src="@thumbnail" alt="" width="112" height="112" style="display:@picture;border-radius:6px;margin:4px 8px">
  <div style="margin:2px 8px;font-weight:600;overflow-wrap:anywhere">@label</div>
  <div style="margin:2px 8px 4px;color:#5b626a;overflow-wrap:anywhere">@image</div>
</div>
"""


def project_to_plane(rows: np.ndarray, seed: int, workers: int) -> np.ndarray:
    """Project embeddings to two dimensions by t-SNE, which starts from PCA.

    Args:
        rows: (N, D) float32.
        seed: Of the random choices.
        workers: Number of threads.

    Returns:
        (N, 2) float64.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(rows) < 2:
        return np.zeros((len(rows), 2))
    if rows.shape[1] < 2:
        rows = np.pad(rows, ((0, 0), (0, 2 - rows.shape[1])))
    if min(rows.shape) > _DIMENSIONS:
        rows = PCA(_DIMENSIONS, random_state=seed).fit_transform(rows)
    if len(rows) < 5:  # too few for neighbourhoods
        method = PCA(2, random_state=seed)
    else:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        method = TSNE(init="pca", perplexity=perplexity, random_state=seed, n_jobs=workers)
    return np.asarray(method.fit_transform(rows), np.float64)


def plot_embedding_map(
    positions: np.ndarray,
    clusters: np.ndarray,
    colours: list[str],
    labels: list[str],
    images: list[str],
    thumbnails: list[str],
    rows: list[int],
) -> figure:
    """Make a scatter plot of the objects; a click calls `fastcomus.openCluster` of the page, a lasso `openObjects`.

    Args:
        positions: (N, 2).
        clusters: (N,) cluster of each object.
        colours: `#rrggbb` by cluster.
        labels: Names by cluster.
        images: Name of the image of each object.
        thumbnails: File of the thumbnail of each object; "" for none.
        rows: Row of each object.

    Returns:
        The plot, whose data source is named "objects".
    """
    from bokeh.models import ColumnDataSource, CustomJS, HoverTool, LassoSelectTool, TapTool, WheelZoomTool
    from bokeh.plotting import figure

    spread = np.abs(positions).max() or 1.0
    columns = {
        "x": np.round(positions[:, 0] / spread, 4).tolist(),
        "y": np.round(positions[:, 1] / spread, 4).tolist(),
        "cluster": clusters.tolist(),
        "colour": [colours[cluster] for cluster in clusters],
        "label": [labels[cluster] for cluster in clusters],
        "image": images,
        "thumbnail": thumbnails,
        "row": rows,
        "picture": ["block" if thumbnail else "none" for thumbnail in thumbnails],
    }
    source = ColumnDataSource(columns, name="objects")
    size = 7 if len(positions) <= 1_000 else 5
    plot = figure(
        sizing_mode="stretch_both", min_height=300, tools="pan,box_zoom,reset", active_drag="pan",
        toolbar_location="above", name="map",
    )  # fmt: skip
    circles = plot.scatter(
        "x", "y", source=source, size=size, color="colour", alpha=0.75, line_color="#ffffff", line_width=0.4,
        line_alpha=0.6, nonselection_alpha=0.1, selection_alpha=1.0,
    )  # fmt: skip
    wheel = WheelZoomTool()
    open_card = CustomJS(
        args={"source": source}, code="const i = source.selected.indices[0]; if (i !== undefined) "
        "{ fastcomus.openCluster(source.data.cluster[i]); source.selected.indices = [] }",
    )  # fmt: skip
    # What a lasso leaves selected is read when it is drawn to its end.
    open_objects = CustomJS(
        args={"source": source}, code="if (cb_obj.final && cb_obj.geometry.type === 'poly') "
        "fastcomus.openObjects(source.selected.indices.map((i) => source.data.row[i]))",
    )  # fmt: skip
    plot.js_on_event("selectiongeometry", open_objects)
    hover = HoverTool(renderers=[circles], tooltips=_TOOLTIP, limit=1)
    plot.add_tools(LassoSelectTool(continuous=False), wheel, hover, TapTool(callback=open_card))
    plot.toolbar.active_scroll = wheel
    plot.toolbar.logo = None
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = None
    plot.background_fill_alpha = plot.border_fill_alpha = 0
    return plot
