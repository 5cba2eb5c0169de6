"""A run in a notebook: its clusters with some pictures of each, as HTML that holds all it needs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fastcomus.clusters.labels import Clusters
from fastcomus.images.found import UnreadableImage
from fastcomus.report.colours import choose_cluster_colours
from fastcomus.report.findings import ShownObjects
from fastcomus.report.image_files import crop_thumbnail, encode_jpeg
from fastcomus.report.samples import sample_core
from fastcomus.report.shown_names import ShownNames

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

_CLUSTERS, _PICTURES, _SIDE = 20, 6, 56


def render_clusters(
    title: str, clusters: Clusters, names: ShownNames, objects: ShownObjects | None, max_pixels: int, backend: Backend
) -> str:
    """Render a table with a row per cluster: name, number of objects, pictures of typical ones.

    Args:
        title: What stands above it.
        clusters: The clusters; of more than 20 the largest are shown.
        names: Their names.
        objects: Their objects on images, or None.
        max_pixels: Largest image that is read.
        backend: Decodes images.

    Returns:
        HTML; images that cannot be read are left out.
    """
    colours, rows = choose_cluster_colours(len(clusters.sizes), names), []
    for cluster in range(min(len(clusters.sizes), _CLUSTERS)):
        pictures = "".join(draw_pictures(sample_core(clusters, cluster, _PICTURES), objects, max_pixels, backend))
        dot = f'<span style="color:{colours[cluster]}">&#9679;</span>'
        label = escape("dropped" if names.is_dropped(cluster) else names.get_label(cluster))
        rows.append(
            f"<tr><td>{cluster}</td><td style='text-align:left'>{dot} {label}</td>"
            f"<td>{int(clusters.sizes[cluster])}</td><td style='text-align:left'>{pictures}</td></tr>"
        )
    more = len(clusters.sizes) - len(rows)
    below = f"<p>and {more} more clusters</p>" if more > 0 else ""
    head = "<tr><th>cluster</th><th>name</th><th>objects</th><th>typical</th></tr>"
    return f"<p><b>{escape(title)}</b></p><table>{head}{''.join(rows)}</table>{below}"


def draw_pictures(rows: np.ndarray, objects: ShownObjects | None, max_pixels: int, backend: Backend) -> Iterator[str]:
    """Draw objects (M,) as <img> elements that hold their pictures; those whose image cannot be read are left out."""
    for row in rows.tolist() if objects is not None else ():
        assert objects is not None
        try:
            pixels = backend.decode(objects.root / objects.images[row], max_pixels)
        except UnreadableImage:
            continue
        crop = crop_thumbnail(Image.fromarray(pixels), objects.boxes[row], objects.decode_mask(row))
        content = base64.b64encode(encode_jpeg(crop)).decode()
        name = escape(objects.images[row], quote=True)
        yield (
            f'<img src="data:image/jpeg;base64,{content}" alt="{name}" title="{name}" width="{_SIDE}" '
            f'height="{_SIDE}" style="display:inline;margin:1px">'
        )
