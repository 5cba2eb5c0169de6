"""Clusters of embeddings that you have already: python own_embeddings.py ROWS.npy K."""

import sys

import numpy as np

import fastcomus

rows = np.load(sys.argv[1])  # (N, D)
clusters = fastcomus.cluster(rows, k=int(sys.argv[2]))
for number, size in enumerate(clusters.sizes):
    core = np.flatnonzero((clusters.labels == number) & clusters.is_core)
    nearest = core[clusters.distances[core].argsort()[:3]]
    print(f"cluster {number}: {size} rows, such as {nearest.tolist()}")
