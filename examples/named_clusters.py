"""From a folder of photographs to named clusters: python named_clusters.py PHOTOS RUN."""

import sys

import pandas as pd

from fastcomus import Run

photos, folder = sys.argv[1:3]
run = Run(folder)
run.embed(photos)  # objects: boxes, masks, embeddings
clusters = run.cluster()  # k=14, or as many as there seem to be
run.report()  # look at RUN/report/index.html
run.name({0: "largest", 1: "second"})  # what you saw there
run.train(iterations=1)  # a network learns the clusters' masks

tables = run.export("csv")  # or coco, voc, yolo, ...
print(pd.read_csv(tables / "images.csv").groupby("class")["share"].describe()[["count", "mean"]])
