"""How near each criterion comes to the right number of clusters: planted sets, and labelled embeddings of your own.

    python -m bench.cluster_count --labelled photographs.npz --planted ../shared/reference/planted.py

A labelled file holds `rows` (N, D) and `classes` (N,). It is taken whole, with random halves and fifths of its classes,
with 10 and 20 objects a class, and with its largest class cut to a tenth. Planted are the unequal classes of the file,
50 and 200 balanced ones of 50 rows (the file's, with rows left out), 60 rows of 3, and ten sets whose numbers of rows
and classes are drawn, which played no part in choosing the criterion. Printed is the number found beside the true one,
|ln(found / true)| over the sets, and for labelled sets the accuracy with that number and with the true one.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import COUNT_CRITERIA, ClusterConfig
from fastcomus.evaluation.image_labels import compute_object_accuracy

BALANCED = (50, 200)
QUICK = ("mixing",)  # on every set; the others once on each labelled file
Set = tuple[str, np.ndarray, np.ndarray]


def main() -> None:
    parser = harness.make_parser(__doc__, "cluster_count")
    parser.add_argument("--labelled", type=Path, nargs="*", default=[], help=".npz files with rows and classes")
    parser.add_argument("--planted", type=Path, help="planted.py: planted(n, k, separation), SEPARATION")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_500, 11_000, 30_000], help="of unequal planted sets")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("fastcomus").setLevel(logging.ERROR)
    rows: list[harness.Row] = []
    for seed in range(arguments.seeds):
        for file in arguments.labelled:
            for one in iterate_labelled(file, seed):
                rows.append(measure(one, seed, seed == 0 and one[0].endswith("whole")))
                harness.print_progress(rows[-1])
        for one in iterate_planted(arguments.planted, arguments.sizes, seed) if arguments.planted else ():
            rows.append(measure(one, seed))
            harness.print_progress(rows[-1])
    for one in draw_planted(arguments.planted) if arguments.planted else ():
        rows.append(measure(one, 0))
        harness.print_progress(rows[-1])
    kinds = {"all": rows, "drawn": [row for row in rows if row["set"].startswith("drawn")]}
    summary = {
        f"{criterion}, {kind}": summarise_criterion(criterion, some)
        for kind, some in kinds.items()
        for criterion in QUICK
        if some
    }
    harness.finish(arguments, "Number of clusters found", {"rows": rows, "summary": summary})
    harness.print_table(f"Of {len(rows)} sets", [{"criterion": name, **numbers} for name, numbers in summary.items()])


def iterate_labelled(file: Path, seed: int) -> Iterator[Set]:
    """The file's rows whole and in parts."""
    with np.load(file) as given:
        rows, classes = given["rows"], given["classes"]
    random, names = np.random.default_rng(seed), np.unique(classes)
    ways: dict[str, np.ndarray] = {"whole": random.permutation(len(rows))}
    for share in (2, 5):
        some = random.choice(names, max(2, len(names) // share), replace=False)
        ways[f"{len(some)} classes"] = np.flatnonzero(np.isin(classes, some))
    orders = [random.permutation(np.flatnonzero(classes == name)) for name in names]
    ways |= {f"{count} each": np.concatenate([order[:count] for order in orders]) for count in (10, 20)}
    largest = max(orders, key=len)
    ways["largest class a tenth"] = np.setdiff1d(np.arange(len(rows)), largest[len(largest) // 10 :])
    for name, chosen in ways.items():
        yield f"{file.stem}, {name}", rows[chosen], classes[chosen]


def iterate_planted(file: Path, sizes: list[int], seed: int) -> Iterator[Set]:
    """Unequal classes, balanced ones of 50 rows, and 60 rows of 3."""
    for size in sizes:
        made, true, k = harness.make_planted_rows(file, size, seed)
        yield f"planted {size:,}, k {k}", made, true
    for k in BALANCED:
        yield f"balanced {50 * k:,}, k {k}", *plant_balanced(file, k, 50, seed)
    yield "balanced 60, k 3", *plant_balanced(file, 3, 20, seed)


def draw_planted(file: Path) -> Iterator[Set]:
    """Ten sets of 2 to 200 classes, equal or not, of 12 to 400 rows on average."""
    module, random = harness.load_file(file), np.random.default_rng(20_261_128)
    for number in range(10):
        k, each = round(2 * 100 ** random.random()), round(12 * (400 / 12) ** random.random())
        separation, is_balanced = random.uniform(0.5, 0.65), random.random() < 0.5
        each = min(each, 15_000 // k)
        if is_balanced:
            made, true = plant_balanced(file, k, each, number + 100, separation)
        else:
            made, true = module.planted(k * each, k, separation, seed=number + 100)
        yield f"drawn {len(made):,}, k {k}", made, true


def plant_balanced(
    file: Path, k: int, each: int, seed: int, separation: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As many rows of each of k classes, of the file's `planted`: those beyond are left out."""
    module = harness.load_file(file)
    separation = separation or max(module.SEPARATION.values())
    size = 4 * k * each
    while True:
        rows, classes = module.planted(size, k, separation, seed=seed)
        if np.bincount(classes).min() >= each:
            break
        size *= 2
    kept = np.sort(np.concatenate([np.flatnonzero(classes == one)[:each] for one in range(k)]))
    return rows[kept], classes[kept]


def measure(one: Set, seed: int, with_all: bool = False) -> harness.Row:
    name, rows, classes = one
    true = len(np.unique(classes))
    found: harness.Row = {"set": name, "seed": seed, "k": true}
    for criterion in COUNT_CRITERIA if with_all else QUICK:
        clusters, cpu_s = cluster(rows, ClusterConfig(choose_k=criterion), seed)
        found |= {criterion: int(clusters.max()) + 1, f"{criterion}_cpu_s": cpu_s}
        if criterion == "mixing" and name.endswith("whole"):
            found["accuracy"] = compute_object_accuracy(clusters, classes)
            found["accuracy_true_k"] = compute_object_accuracy(cluster(rows, ClusterConfig(k=true), seed)[0], classes)
    return found


def cluster(rows: np.ndarray, config: ClusterConfig, seed: int) -> tuple[np.ndarray, float]:
    start = time.process_time()
    labels = cluster_embeddings(np.ascontiguousarray(rows), config, seed, select("cpu")).clusters.labels
    return labels, time.process_time() - start


def summarise_criterion(criterion: str, rows: list[harness.Row]) -> harness.Row:
    errors = [abs(math.log(row[criterion] / row["k"])) for row in rows]
    return {
        "mean_error": statistics.fmean(errors),
        "worst_error": max(errors),
        "right": sum(abs(row[criterion] - row["k"]) <= 0.1 * row["k"] for row in rows),
    }


if __name__ == "__main__":
    main()
