"""The Parquet parts of `objects/`: schema, rows, masks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

SKIPPED_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("width", pa.int32()),  # 0 where the image could not be read
        ("height", pa.int32()),
    ]
)


def make_object_schema(dimension: int) -> pa.Schema:
    """Columns of `objects/part-*.parquet`: boxes in pixels, half-open; `mask` COCO run lengths at image size."""
    pixels = [(name, pa.int32()) for name in ("width", "height", "x0", "y0", "x1", "y1", "area")]
    return pa.schema(
        [
            ("image", pa.string()),
            *pixels,
            ("score", pa.float32()),
            ("mask", pa.string()),
            ("embedding", pa.list_(pa.float32(), dimension)),
        ]
    )


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """(H, W) bool from the `mask` column."""
    return coco_mask.decode({"size": [height, width], "counts": counts.encode("ascii")}).astype(bool)


def _name_part(index: int) -> str:
    return f"objects/part-{index:05d}.parquet"
