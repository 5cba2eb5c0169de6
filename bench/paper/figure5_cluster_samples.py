"""Figure 5: objects of every cluster: a row per cluster, those nearest to its centre."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bench.paper.experiment import Experiment
from bench.paper.result import Result

NEEDS = "--data voc:PATH@val, folders:DIR or a folder; writes cluster-samples.jpg into --work."
SEEDS = 1
SAMPLES, SIDE = 10, 96  # objects in a row, pixels


def measure(experiment: Experiment) -> Result:
    run = experiment.objects
    clusters, classes = experiment.cluster_run(run, 0), experiment.find_object_classes(run)
    objects = run.objects().select(["image", "x0", "y0", "x1", "y1"]).to_pylist()
    names = experiment.truth.classes
    result = Result("Clusters", ("cluster", "objects", "main class", "share of it"))
    sheet = Image.new("RGB", (SAMPLES * SIDE, len(clusters.sizes) * SIDE), "white")
    for cluster, size in enumerate(clusters.sizes.tolist()):
        members = np.flatnonzero(clusters.labels == cluster)
        known = classes[members][classes[members] >= 0]
        main = int(np.bincount(known).argmax()) if known.size else 0
        share = float(np.mean(classes[members] == main)) if size else 0.0
        result.add(str(cluster), size, names[main], share)
        for column, index in enumerate(members[np.argsort(clusters.distances[members], kind="stable")][:SAMPLES]):
            row = objects[index]
            with Image.open(experiment.images / row["image"]) as picture:
                crop = picture.convert("RGB").crop((row["x0"], row["y0"], row["x1"], row["y1"]))
            sheet.paste(crop.resize((SIDE, SIDE)), (column * SIDE, cluster * SIDE))
    file = experiment.work / "cluster-samples.jpg"
    sheet.save(file, quality=90)
    result.notes.append(f"Drawn in {file}.")
    return result
