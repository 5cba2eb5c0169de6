"""Figure 3: the embeddings of the objects in the plane, by t-SNE, in the colours of their classes."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from bench.paper.experiment import Experiment
from bench.paper.result import Result
from fastcomus.store.masks import make_voc_palette

NEEDS = "--data voc:PATH@val, folders:DIR or a folder; writes tsne.png into --work."
SEEDS = 1
SIDE, DOT = 900, 4  # pixels


def measure(experiment: Experiment) -> Result:
    run = experiment.objects
    rows, classes = experiment.read_rows(run), experiment.find_object_classes(run)
    plane = TSNE(random_state=0, init="pca", perplexity=min(30, (len(rows) - 1) / 3)).fit_transform(rows)
    spread = plane - plane.min(axis=0)
    positions = 20 + spread / spread.max() * (SIDE - 40)
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(picture)
    for (x, y), label in zip(positions, classes, strict=True):
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=tuple(make_voc_palette()[label + 1].tolist()))
    file = experiment.work / "tsne.png"
    picture.save(file)
    result = Result(f"t-SNE of {len(rows)} objects", ("space", "neighbours of the same class"))
    for name, space in (("embeddings", rows), ("plane", plane)):
        near = NearestNeighbors(n_neighbors=11).fit(space).kneighbors(space, return_distance=False)[:, 1:]
        result.add(name, float(np.mean(classes[near] == classes[:, None])))
    result.notes.append(f"Drawn in {file}; the share counts each object's 10 nearest.")
    return result
