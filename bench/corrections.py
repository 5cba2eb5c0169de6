"""What five minutes of a person's time are worth: some objects of msrc14 put right by their true labels.

    python -m bench.corrections --data ../shared/data/msrc14
    python -m bench.corrections --data ../shared/data/msrc14 --look doubtful --clusters-only

`--data`: JPEGImages/, SegmentationClassBG/, classes.txt and objects.txt, as for bench.paper. Objects are found and
clustered with the preset offline, as `fastcomus run` does it. Each cluster is given to the class that most of its
objects have. The `--count` objects that the page of `fastcomus view` shows first under "Poor masks" (or, by `--look`,
"Most doubtful") are looked at: those whose mask is mostly background are no objects, and those whose class is not that
of their cluster are moved to the largest cluster of their class. Prints the share of objects in a cluster of their
class, and mIoU (Hungarian, background included, in percent) of the clusters' masks and, without `--clusters-only`, of
a network trained on them, before and after.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from bench import harness
from fastcomus.clusters.files import read_clusters
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.report.gallery import compare_objects
from fastcomus.run.run import Run
from fastcomus.store.embeddings import extract_embeddings
from fastcomus.store.objects_table import decode_mask

_VOID = 255
LOOKS = ("poor", "doubtful")


def main() -> None:
    parser = harness.make_parser(__doc__, "corrections", data=None, count=30, seed=0)
    parser.add_argument("--k", type=int, default=14, help="clusters")
    parser.add_argument("--look", choices=LOOKS, default=LOOKS[0], help="at what the page lists so")
    parser.add_argument("--clusters-only", action="store_true", help="train nothing")
    parser.add_argument("--run", type=Path, default=Path("corrections-run"), help="run folder, made where it is not")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    run = prepare(arguments)
    classes = find_true_classes(run, arguments.data)
    labels = read_clusters(run.folder).labels
    before = score(run, arguments)
    looked_at = choose_objects(run, arguments.look, arguments.count)
    targets = find_targets(classes, labels, looked_at)
    moved = {row: to for row, to in targets.items() if to != labels[row]}
    for to in sorted(set(moved.values())):
        run.correct([row for row in moved if moved[row] == to], "-" if to < 0 else to)
    after = score(run, arguments)
    right = [compute_accuracy(classes, one, labels) for one in (labels, read_clusters(run.folder).labels)]
    numbers: dict[str, float] = {"looked_at": len(looked_at), "corrected": len(moved)}
    numbers["no_objects"] = sum(to < 0 for to in moved.values())
    numbers |= {"object_accuracy": right[0], "object_accuracy_corrected": right[1]}
    for name, value in before.items():
        numbers |= {name: value, f"{name}_corrected": after[name]}
    harness.finish(arguments, "Corrections", numbers)


def prepare(arguments: harness.argparse.Namespace) -> Run:
    """A run with clusters and no corrections."""
    run = Run(arguments.run, preset="offline", seed=arguments.seed)
    (arguments.run / "corrections.parquet").unlink(missing_ok=True)
    names = (arguments.data / "objects.txt").read_text().split()
    run.embed([arguments.data / "JPEGImages" / f"{name}.jpg" for name in names])
    run.cluster(k=arguments.k)
    return run


def score(run: Run, arguments: harness.argparse.Namespace) -> dict[str, float]:
    """Mean IoU of the clusters' masks, and of the network's."""
    data = arguments.data
    scored = {"miou_clusters": 0}
    if not arguments.clusters_only:
        run.train()
        scored["miou_network"] = 1
    truth, classes = data / "SegmentationClassBG", data / "classes.txt"
    return {name: 100 * run.evaluate(truth, classes, one).hungarian.miou for name, one in scored.items()}  # type: ignore[union-attr]


def find_true_classes(run: Run, data: Path) -> np.ndarray:
    """The class of most labelled pixels of each object, (N,); 0 for background."""
    classes = []
    for row in run.objects().to_pylist():
        file = data / "SegmentationClassBG" / f"{Path(row['image']).stem}.png"
        true = read_mask(file)[decode_mask(row["mask"], row["height"], row["width"])]
        counts = np.bincount(true[true != _VOID], minlength=1)
        classes.append(int(counts.argmax()))
    return np.array(classes)


def choose_objects(run: Run, look: str, count: int) -> np.ndarray:
    """The rows that the page lists first."""
    objects = run.objects()
    likeness = compare_objects(
        extract_embeddings(objects),
        read_clusters(run.folder),
        objects["image"].to_pylist(),
        objects["score"].to_numpy(),
        0,
        run.workplace.backend,
    )
    order = likeness.soundness if look == "poor" else likeness.margin
    return np.argsort(order, kind="stable")[:count]


def find_targets(classes: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> dict[int, int]:
    """Where each object belongs: its own cluster if that is one of its class, else the largest one that is."""
    counts = count_classes(classes, labels)
    owner = counts.argmax(axis=1)
    targets = {}
    for row in rows.tolist():
        own = classes[row]
        mates = np.flatnonzero(owner == own)
        if own == 0:
            targets[row] = -1
        elif owner[labels[row]] == own or not len(mates):
            targets[row] = int(labels[row])
        else:
            targets[row] = int(mates[counts[mates, own].argmax()])
    return targets


def compute_accuracy(classes: np.ndarray, labels: np.ndarray, found: np.ndarray) -> float:
    """Share, in percent, of the objects in a cluster of their class; what is no object is right in none."""
    owner = count_classes(classes, found).argmax(axis=1)
    return 100 * float(np.where(labels < 0, classes == 0, owner[np.maximum(labels, 0)] == classes).mean())


def count_classes(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros((labels.max() + 1, classes.max() + 1), np.int64)
    np.add.at(counts, (labels, classes), 1)
    return counts


if __name__ == "__main__":
    main()
