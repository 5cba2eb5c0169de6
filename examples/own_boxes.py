"""Boxes and embeddings of your own to masks and a network: python own_boxes.py PHOTOS BOXES.json RUN.

BOXES.json is a COCO JSON. Here a histogram of colours stands for an embedding of your own.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fastcomus import Run

photos, boxes, folder = map(Path, sys.argv[1:4])
content = json.loads(boxes.read_text())
name_of = {one["id"]: one["file_name"] for one in content["images"]}


def describe(crop: Image.Image) -> list[float]:
    """Return the share of each of 64 colours: 64 numbers."""
    colours = np.asarray(crop.convert("RGB")) // 64 @ np.array([16, 4, 1], np.uint8)
    return (np.bincount(colours.ravel(), minlength=64) / colours.size).tolist()


rows = []
for one in content["annotations"]:
    x, y, width, height = map(round, one["bbox"])
    crop = Image.open(photos / name_of[one["image_id"]]).crop((x, y, x + width, y + height))
    place = {"x0": x, "y0": y, "x1": x + width, "y1": y + height}
    rows.append({"image": name_of[one["image_id"]], **place, "embedding": describe(crop)})
folder.mkdir(parents=True, exist_ok=True)
pq.write_table(pa.Table.from_pylist(rows), folder / "own-objects.parquet")

run = Run(folder)
run.embed(photos, masks=str(folder / "own-objects.parquet"))  # a column mask instead of boxes: COCO run lengths
run.cluster()
print(run.train(iterations=1))  # the folder of the network and of its masks
