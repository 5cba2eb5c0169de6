"""Clusters of more rows than are fitted whole: time, memory, recall and labels, beside what a user would run instead.

    python -m bench.scale_out --rows 200000 --fit-on 40000
    python -m bench.scale_out --rows 1000000 --fit-on 200000 --scratch DIR --sides whole sample
    python -m bench.scale_out --page docs/scale.md        # write the table of the page anew from the JSON

Planted rows: 80 classes, unequal, on the unit sphere, made in parts on disk as float16 and never held whole. Sides:
`whole` fits on all rows; `sample` on `--fit-on` of them; `sample, Ray` shares the others among two actors;
`MiniBatchKMeans` (scikit-learn, `partial_fit` by blocks), `FAISS k-means` (its own sample, labels by blocks) and
`recipe` (scikit-learn's SpectralClustering by neighbours) get the same rows and k. `EVoC` is told to find about k
clusters; `fast_hdbscan` finds their number itself, on ten principal components; these two run where they are installed
(`pip install evoc fast-hdbscan`). Each side runs in a process of its own. CPU-seconds are of all its processes; memory
is the peak of the largest, pages of mapped files included. Recall is that of the neighbours' graph and of the search
among the fitted; the adjusted Rand index is to the planted classes, of all rows and of those that were fitted. What was
measured is kept in the JSON, by rows, sample and side: a run that was stopped goes on.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import harness
from bench.processes_cpu import watch_cpu
from fastcomus.config import ClusterConfig

WIDTH, K, SEPARATION = 384, 80, 0.408  # as the set of 118,000 rows of the tests' reference
BLOCK = 65_536
FITTED, CORES = 1_000_000, 50 * 16  # on paper
WRITER_BYTES = 26  # an object: label, distance, two flags, and the order in which the filter takes them
TABLE_START, TABLE_END = "<!-- bench/scale_out.py -->", "<!-- end of scale_out -->"


def main() -> None:
    parser = harness.make_parser(__doc__, "scale_out", threads=1, seed=0)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--fit-on", type=int, default=40_000)
    installed = [side for side in SIDES if side not in OPTIONAL or importlib.util.find_spec(OPTIONAL[side])]
    parser.add_argument("--sides", nargs="*", default=installed, choices=list(SIDES), metavar="SIDE")
    parser.add_argument("--recall", type=float, default=ClusterConfig.recall, help="of the searches for neighbours")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a side is given up")
    parser.add_argument("--scratch", type=Path, help="folder for the rows, which stay there")
    parser.add_argument("--page", type=Path, help="only write the table of this page anew")
    arguments = parser.parse_args()
    numbers = harness.read_json(arguments.json)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        arguments.page.write_text(put_table(text, format_page(numbers["rows"])), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        file = make_rows(scratch, arguments.rows, arguments.seed)
        for side in arguments.sides:
            key = {"objects": arguments.rows, "fit_on": 0 if side in WHOLE else arguments.fit_on, "side": side}
            kept = numbers.setdefault("rows", [])
            if any(key.items() <= row.items() for row in kept):
                continue
            given = side, file, scratch / f"{side}-{arguments.rows}", key["fit_on"], arguments.seed, arguments.recall
            found = harness.run_apart(measure_side, *given, threads=arguments.threads, limit_s=arguments.limit)
            about = harness.describe_run("cpu", "scikit-learn", "faiss-cpu", "ray")
            kept.append({**key, **found, "threads": arguments.threads, "machine": about["hardware"]})
            harness.print_progress(kept[-1])
            harness.write_json(arguments.json, {**about, **numbers})
    harness.print_table("Many rows", numbers["rows"])


def make_rows(folder: Path, count: int, seed: int) -> Path:
    """Write `rows-COUNT.npy`, (count, 384) float16, and `classes-COUNT.npy` beside it, unless they are there.

    The distribution is that of the tests' reference (`planted`), drawn block by block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, classes_file = folder / f"rows-{count}.npy", folder / f"classes-{count}.npy"
    if classes_file.exists():
        return file
    random = np.random.default_rng(seed)
    weights = np.arange(1, K + 1) ** -0.7 * np.exp(0.3 * random.standard_normal(K))
    spectrum, noise = (np.arange(1, WIDTH + 1) ** power for power in (-0.5, -0.3))
    spectrum, noise = spectrum / np.linalg.norm(spectrum), 0.8 * noise / np.linalg.norm(noise)
    means = SEPARATION * random.standard_normal((K, WIDTH)) * spectrum
    common, rank = random.standard_normal(WIDTH) * spectrum, 16
    fading = (np.arange(1, rank + 1) ** -0.5)[None, :, None]
    axes = (0.3 * random.standard_normal((K, rank, WIDTH)) * spectrum * fading).astype(np.float32)
    rows = np.lib.format.open_memmap(file, "w+", np.float16, (count, WIDTH))
    classes = np.empty(count, np.int32)
    for start, stop in iterate_blocks(count):
        some = random.choice(K, stop - start, p=weights / weights.sum())
        scale = np.exp(0.12 * random.standard_normal((stop - start, 1))).astype(np.float32)
        spread = random.standard_normal((stop - start, WIDTH), np.float32) * noise.astype(np.float32)
        along = random.standard_normal((stop - start, rank), np.float32)
        for one in range(K):
            members = some == one
            spread[members] += along[members] @ axes[one]
        made = (means[some] + common).astype(np.float32) + scale * spread
        rows[start:stop] = made / np.linalg.norm(made, axis=1, keepdims=True)
        classes[start:stop] = some
    rows.flush()
    np.save(classes_file, classes)
    return file


def iterate_blocks(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, BLOCK):
        yield start, min(start + BLOCK, count)


def measure_side(side: str, file: Path, folder: Path, fit_on: int, seed: int, recall: float) -> harness.Row:
    from sklearn.metrics import adjusted_rand_score

    facts: harness.Row = {}
    with watch_cpu() as watched:
        times = harness.time_once(SIDES[side], file, folder, fit_on, seed, recall, facts)
    classes = np.load(file.with_name(file.name.replace("rows", "classes")))
    labels, is_fitted = times.result
    found = {"wall_s": times.wall_s[0], "cpu_s": watched.seconds, "peak_mib": watched.peak_mib, **facts}
    found["ari"] = adjusted_rand_score(classes, labels)
    if is_fitted is not None:
        found["ari_fitted"] = adjusted_rand_score(classes[is_fitted], labels[is_fitted])
    return found


Labels = tuple[np.ndarray, np.ndarray | None]


def cluster_whole(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    return _cluster(file, folder, len(np.load(file, mmap_mode="r")), seed, recall, facts)


def cluster_sample(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    return _cluster(file, folder, fit_on, seed, recall, facts)


def cluster_on_ray(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    return _cluster(file, folder, fit_on, seed, recall, facts, engine="ray")


def _cluster(
    file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row, **where: Any
) -> Labels:
    import shutil

    import torch

    from fastcomus import Run

    shutil.rmtree(folder, ignore_errors=True)
    run = Run(folder, preset="offline", seed=seed, device="cpu", workers=torch.get_num_threads())
    found = run.cluster(file, k=K, fit_on=fit_on, recall=recall, **where)
    manifest = run.folder.read_manifest("clusters") or {}
    facts.update(recall=manifest["recall"], search_recall=manifest.get("search_recall", 1.0))
    shutil.rmtree(folder)
    return found.labels, found.is_fitted


def run_minibatch(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    from sklearn.cluster import MiniBatchKMeans

    rows, model = np.load(file, mmap_mode="r"), MiniBatchKMeans(K, random_state=seed, n_init=10)
    blocks = list(iterate_blocks(len(rows)))
    for start, stop in blocks:
        model.partial_fit(rows[start:stop].astype(np.float32))
    return np.concatenate([model.predict(rows[start:stop].astype(np.float32)) for start, stop in blocks]), None


def run_faiss(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    import faiss

    rows = np.load(file, mmap_mode="r")
    model = faiss.Kmeans(WIDTH, K, niter=25, nredo=5, seed=seed)
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), min(len(rows), 256 * K), replace=False))
    model.train(rows[chosen].astype(np.float32))  # as many rows as it would draw by itself
    blocks = iterate_blocks(len(rows))
    found = [model.index.search(rows[start:stop].astype(np.float32), 1)[1][:, 0] for start, stop in blocks]
    return np.concatenate(found), None


def run_recipe(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(K, affinity="nearest_neighbors", n_neighbors=30, random_state=seed, n_jobs=1)
    return model.fit_predict(np.load(file).astype(np.float32)), None


def run_evoc(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    from evoc import EVoC

    model = EVoC(approx_n_clusters=K, random_state=seed)
    return model.fit_predict(np.load(file).astype(np.float32)), None


def run_hdbscan(file: Path, folder: Path, fit_on: int, seed: int, recall: float, facts: harness.Row) -> Labels:
    from fast_hdbscan import HDBSCAN
    from sklearn.decomposition import PCA

    rows = PCA(10, random_state=seed).fit_transform(np.load(file).astype(np.float32))
    return HDBSCAN(min_cluster_size=max(5, len(rows) // (20 * K))).fit_predict(rows), None


SIDES: dict[str, Callable[..., Labels]] = {
    "sample": cluster_sample,
    "whole": cluster_whole,
    "sample, Ray": cluster_on_ray,
    "MiniBatchKMeans": run_minibatch,
    "FAISS k-means": run_faiss,
    "recipe": run_recipe,
    "EVoC": run_evoc,
    "fast_hdbscan": run_hdbscan,
}
WHOLE = ("whole", "MiniBatchKMeans", "FAISS k-means", "recipe", "EVoC", "fast_hdbscan")
OPTIONAL = {"EVoC": "evoc", "fast_hdbscan": "fast_hdbscan"}  # the package that a side needs


def format_page(rows: list[harness.Row]) -> str:
    """What docs/scale.md has of it: what was measured, and what follows on paper."""
    return f"{format_page_table(rows)}\n\nOn paper:\n\n{format_projection(rows)}"


def format_page_table(rows: list[harness.Row]) -> str:
    """The table of docs/scale.md in Markdown."""
    lines = [("objects", "side", "CPU s", "peak, GB", "recall", "ARI"), ("---",) * 6]
    for row in sorted(rows, key=lambda row: row["objects"]):
        side = f"{row['side']}, {row['fit_on']:,} fitted" if row["fit_on"] else row["side"]
        side += f", {row['threads']} threads" if row["threads"] > 1 else ""
        if "gave_up" in row:
            lines.append((f"{row['objects']:,}", side, row["gave_up"], "", "", ""))
            continue
        recall = f"{row['recall']:.3f}, {row['search_recall']:.3f}" if "recall" in row else ""
        measured = f"{row['cpu_s']:,.0f}", f"{row['peak_mib'] / 1024:.1f}", recall, f"{row['ari']:.3f}"
        lines.append((f"{row['objects']:,}", side, *measured))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def project(rows: list[harness.Row], objects: int) -> harness.Row:
    """What so many objects would take on paper, `FITTED` of them fitted and the rest labelled by `CORES` cores.

    CPU-seconds an object are slopes between the two largest sizes: of `whole` for the fit, of `sample` less its fit for
    the labels. More fitted objects are more to search among: `label_most_h` grows with the root of their number, as the
    length of the lists that are searched does.
    """
    by_side = {
        side: sorted((row for row in rows if row["side"] == side and "cpu_s" in row), key=lambda row: row["objects"])[
            -2:
        ]
        for side in ("whole", "sample")
    }
    small, large = by_side["whole"]
    fit = (large["cpu_s"] - small["cpu_s"]) / (large["objects"] - small["objects"])
    small, large = by_side["sample"]
    more_fitted = large["fit_on"] - small["fit_on"]
    more = large["objects"] - small["objects"] - more_fitted
    label = (large["cpu_s"] - small["cpu_s"] - fit * more_fitted) / more
    hours = label * objects / CORES / 3600
    return {
        "fit_h": fit * FITTED / 3600,
        "label_h": hours,
        "label_most_h": hours * float(np.sqrt(FITTED / large["fit_on"])),
        "disk_gb": 2 * WIDTH * objects / 1e9,
        "writer_gb": WRITER_BYTES * objects / 1e9,
    }


def format_projection(rows: list[harness.Row]) -> str:
    names = {
        "fit_h": "fit of 1,000,000, h (one core)",
        "label_h": "labels, h (800 cores), at least",
        "label_most_h": "at most",
        "disk_gb": "rows on disk, GB",
        "writer_gb": "held by the writer, GB",
    }
    lines = [("objects", *names.values()), ("---",) * 6]
    for objects in (10_000_000, 100_000_000, 1_000_000_000):
        values = project(rows, objects)
        lines.append(
            (
                f"{objects:,}",
                *(f"{values[name]:.2g}" if values[name] < 10 else f"{values[name]:,.0f}" for name in names),
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put_table(text: str, table: str) -> str:
    """`text` with `table` between the two marks."""
    before, _, rest = text.partition(TABLE_START)
    _, mark, after = rest.partition(TABLE_END)
    assert mark, f"the page lacks {TABLE_START} or {TABLE_END}"
    return f"{before}{TABLE_START}\n{table}\n{TABLE_END}{after}"


if __name__ == "__main__":
    main()
