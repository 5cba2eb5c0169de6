"""What five minutes of a person's time are worth: some objects of msrc14 put right by their true labels.

    python -m bench.corrections --data ../shared/data/msrc14
    python -m bench.corrections --data ../shared/data/msrc14 --looks doubtful --clusters-only

`--data`: JPEGImages/, SegmentationClassBG/, classes.txt and objects.txt, as for bench.paper. Objects are found and
clustered with the preset offline, as `fastcomus run` does it. Each cluster is given to the class that most of its
objects have. `--count` objects are looked at in each of these ways, each from the clusters as they were found: `poor`
and `doubtful` are those that the page of `fastcomus view` shows first under "Poor masks" and "Most doubtful"; `mixed`
are those of the largest classes that have no cluster of their own, which a person sees standing in the galleries of
other clusters; `alike` are five of each of these classes, from the cluster that holds most of it, with which goes what
is like them (`--alike`, the page's "Choose what is like them"), right or wrong. Those whose mask is mostly background
are no objects; those whose class is not that of their cluster are moved to the largest cluster of their class, or,
where it has none and at least five of it are looked at, to a new one. Prints the share of objects in a cluster of their
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
LOOKS = ("poor", "doubtful", "mixed", "alike")
_OF_NEW_CLUSTER = 5  # objects, at least


def main() -> None:
    parser = harness.make_parser(__doc__, "corrections", data=None, count=30, seed=0)
    parser.add_argument("--k", type=int, default=14, help="clusters")
    parser.add_argument("--looks", nargs="*", default=list(LOOKS), choices=LOOKS, metavar="LOOK")
    parser.add_argument("--clusters-only", action="store_true", help="train nothing")
    parser.add_argument("--run", type=Path, default=Path("corrections-run"), help="run folder, made where it is not")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    run = prepare(arguments)
    classes = find_true_classes(run, arguments.data)
    labels = read_clusters(run.folder).labels
    before = {"object_accuracy": compute_accuracy(classes, labels, labels), **score(run, arguments)}
    rows = [{"look": "none", "looked_at": 0, "corrected": 0, "no_objects": 0, **before}]
    for look in arguments.looks:
        forget_corrections(run)
        looked_at = choose_objects(run, look, arguments.count, classes)
        targets = find_targets(classes, labels, looked_at)
        moved = {row: to for row, to in targets.items() if to != labels[row]}
        for to in sorted(set(moved.values())):  # new clusters get the numbers after the last
            place = "-" if to < 0 else to if to <= labels.max() else "new"
            run.correct([row for row in moved if moved[row] == to], place, alike=look == "alike")
        now = read_clusters(run.folder).labels
        row = {"look": look, "looked_at": len(looked_at), "corrected": int((now != labels).sum())}
        row["no_objects"] = int((now < 0).sum())
        row["object_accuracy"] = compute_accuracy(classes, labels, now)
        rows.append({**row, **score(run, arguments)})
        harness.print_progress(rows[-1])
    harness.finish(arguments, "Corrections", {"rows": rows})


def prepare(arguments: harness.argparse.Namespace) -> Run:
    """A run with clusters and no corrections."""
    run = Run(arguments.run, preset="offline", seed=arguments.seed)
    forget_corrections(run)
    names = (arguments.data / "objects.txt").read_text().split()
    run.embed([arguments.data / "JPEGImages" / f"{name}.jpg" for name in names])
    run.cluster(k=arguments.k)
    return run


def forget_corrections(run: Run) -> None:
    while (run.folder.path / "corrections.parquet").exists() and len(run.correct()):
        run.correct(undo=True)


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


def choose_objects(run: Run, look: str, count: int, classes: np.ndarray) -> np.ndarray:
    """The rows that the page lists first, or of the largest classes without a cluster."""
    objects, clusters = run.objects(), read_clusters(run.folder)
    if look in ("mixed", "alike"):
        counts = count_classes(classes, clusters.labels)
        sizes = counts.sum(axis=0)
        sizes[[0, *counts.argmax(axis=1)]] = 0
        largest = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
        chosen = [np.flatnonzero(classes == one) for one in largest]
        if look == "alike":
            homes = counts[:, largest].argmax(axis=0)
            chosen = [own[clusters.labels[own] == home] for own, home in zip(chosen, homes, strict=True)]
            chosen = [own[:_OF_NEW_CLUSTER] for own in chosen]
        return np.concatenate([*chosen, np.empty(0, np.int64)])[:count]
    likeness = compare_objects(
        extract_embeddings(objects),
        clusters,
        objects["image"].to_pylist(),
        objects["score"].to_numpy(),
        0,
        run.workplace.backend,
    )
    order = likeness.soundness if look == "poor" else likeness.margin
    return np.argsort(order, kind="stable")[:count]


def find_targets(classes: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> dict[int, int]:
    """Where each object belongs: -1 for none, its own cluster, the largest one of its class, or a new one."""
    counts = count_classes(classes, labels)
    owner = counts.argmax(axis=1)
    looked_at = np.bincount(classes[rows])
    alike = (one for one in np.flatnonzero(looked_at >= _OF_NEW_CLUSTER) if one and one not in owner)
    added = {one: len(counts) + place for place, one in enumerate(alike)}
    targets = {}
    for row in rows.tolist():
        own = classes[row]
        mates = np.flatnonzero(owner == own)
        if own == 0:
            targets[row] = -1
        elif owner[labels[row]] == own or not (len(mates) or own in added):
            targets[row] = int(labels[row])
        else:
            targets[row] = int(mates[counts[mates, own].argmax()]) if len(mates) else added[own]
    return targets


def compute_accuracy(classes: np.ndarray, found: np.ndarray, labels: np.ndarray) -> float:
    """Share, in percent, of the objects in a cluster of their class; what is no object is right in none.

    A cluster is of the class that most of its objects had when it was found; a new one, that they have now.
    """
    first, now = (count_classes(classes, some).argmax(axis=1) for some in (found, labels))
    owner = np.concatenate([first, now[len(first) :]])
    return 100 * float(np.where(labels < 0, classes == 0, owner[labels] == classes).mean())


def count_classes(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many objects of each class are in each cluster, (clusters, classes); no objects count nowhere."""
    counts = np.zeros((labels.max() + 1, classes.max() + 1), np.int64)
    np.add.at(counts, (labels[labels >= 0], classes[labels >= 0]), 1)
    return counts


if __name__ == "__main__":
    main()
