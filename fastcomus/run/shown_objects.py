"""The objects of a run on their images, for pages that show them."""

from __future__ import annotations

import numpy as np

from fastcomus.report.findings import ShownObjects
from fastcomus.run.contents import ImageSource, open_image_source
from fastcomus.run.workplace import Workplace
from fastcomus.store.objects_table import read_shards


def read_shown_objects(at: Workplace) -> tuple[ImageSource, ShownObjects]:
    """Return the images of the run and its objects on them."""
    columns = ["image", "x0", "y0", "x1", "y1", "mask", "height", "width", "score"]
    source, table = open_image_source(at), read_shards(at.folder, columns).combine_chunks()
    boxes = np.stack([table[side].to_numpy() for side in ("x0", "y0", "x1", "y1")], axis=1)
    return source, ShownObjects(source.root, tuple(table["image"].to_pylist()), boxes, table)
