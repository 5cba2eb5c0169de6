"""Every stage as a function of a folder that was made for it, of as many objects as wanted; used by bench/scale.py.

A prepared run folder is written with the project's own writers, so that a stage can be measured without those before
it: rows of planted classes, one object an image, masks of half an image, eigenmaps of 14 columns. The images are hard
links of eight small scenes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.sparse import load_npz, save_npz

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.backends.cpu import CpuBackend
from fastcomus.cli.demo.scenes import make_scenes
from fastcomus.clusters.eigenmaps import Eigenmaps, compute_eigenmaps
from fastcomus.clusters.files import write_clusters
from fastcomus.clusters.graph import build_knn_graph
from fastcomus.clusters.labels import build_clusters, cluster_rows
from fastcomus.config import ClusterConfig
from fastcomus.run.cluster_masks import write_cluster_masks
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, to_dict, with_settings
from fastcomus.store.masks import write_class_map
from fastcomus.store.objects_table import SKIPPED_SCHEMA, finish_shards, make_object_schema, read_shards, write_shard
from fastcomus.store.run_folder import RunFolder

K, DIMENSION, SIDE = 14, 384, (64, 48)
SCENES, PART_ROWS, NEW_ROWS = 8, 256, 500
SMALL = {
    "saliency": {"priors": "background-prior", "refine_epochs": 0, "epochs": 1, "size": 33},
    "embed": {"crop_size": 32, "min_area": 20, "embed_batch": 16},
    "cluster": {"k": K},
    "train": {"iterations": 1, "epochs": 1, "batch_size": 16, "train_size": 33, "learning_rate": 1e-3},
    "predict": {"predict_size": 33, "scales": "1", "flip": False, "predict_batch": 16},
    "report": {"map_objects": 300, "shown_images": 40},
}
ROW_STAGES = ("graph", "eigenmaps", "labels")


@dataclass(frozen=True)
class Stage:
    """`sizes`: objects. `prepare(folder, size)` makes what `work(folder)` needs; `per`: what is counted."""

    sizes: tuple[int, int, int]
    prepare: Callable[[Path, int], object]
    work: Callable[[Path], object]
    per: str = "object"


def make_images(folder: Path, count: int) -> None:
    """`folder`/images/NNN/NNNNNN.jpg, and truth/ beside it."""
    make_scenes(folder / "scenes", SCENES, 0)
    for kind, ending in (("images", "jpg"), ("truth", "png")):
        for scene in range(SCENES):
            file = folder / "scenes" / kind / f"scene-{scene:03d}.{ending}"
            with Image.open(file) as picture:
                picture.resize(SIDE, Image.Resampling.NEAREST).save(file)
        for number in range(count):
            target = folder / kind / f"{_name_image(number)[:-4]}.{ending}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / "scenes" / kind / f"scene-{number % SCENES:03d}.{ending}", target)


def make_clustered_run(folder: Path, count: int) -> None:
    """`make_images`, and a run on them with objects, clusters and the clusters' masks."""
    make_images(folder, count)
    run = make_objects(folder, count)
    rng = np.random.default_rng(1)
    labels = np.arange(count) % K
    maps = (np.eye(K)[labels] + rng.normal(0, 0.05, (count, K))).astype(np.float32)
    clusters = build_clusters(maps, labels, K, 0.2)
    write_clusters(
        run, clusters, Eigenmaps(maps, np.linspace(0, 0.3, K), 0.0, 0.0), read_shards(run, ["image"])["image"]
    )
    config = asdict(ClusterConfig(k=K, assign="kmeans"))
    facts = {"k": K, "objects": count, "images": True, "source": "made", "embeddings": "", "config": config}
    run.finish("clusters", "clustered", **facts, residual=0.0, orthonormality=0.0)
    for number in range(SCENES):
        write_class_map(
            run, f"iteration-0/masks/{_name_image(number)}.png", np.where(_make_mask(number), 1 + number % K, 0)
        )
    for number in range(SCENES, count):
        target = run.resolve_file(f"iteration-0/masks/{_name_image(number)}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(run.resolve_file(f"iteration-0/masks/{_name_image(number % SCENES)}.png"), target)
    run.finish("iteration-0", "masks", follows="clustered")


def make_objects(folder: Path, count: int) -> RunFolder:
    """A run folder after `embed`, of images that need not be there."""
    run = RunFolder(folder / "run")
    config = with_settings(get_preset_config("offline"), SMALL)
    run.write_state({"images": str((folder / "images").resolve()), "config": to_dict(config), "notes": []})
    schema, empty = make_object_schema(DIMENSION), pa.Table.from_pylist([], schema=SKIPPED_SCHEMA)
    centres = np.random.default_rng(0).normal(size=(K, DIMENSION)).astype(np.float32)
    counts = [
        coco_mask.encode(np.asfortranarray(_make_mask(n).astype(np.uint8)))["counts"].decode() for n in range(SCENES)
    ]
    starts = range(0, count, PART_ROWS)
    for index, start in enumerate(starts):
        numbers = np.arange(start, min(start + PART_ROWS, count))
        rows = centres[numbers % K] + np.random.default_rng(index).normal(size=(len(numbers), DIMENSION))
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), DIMENSION)
        boxes = {"width": SIDE[0], "height": SIDE[1], "x0": 0, "y0": 0, "x1": 32, "y1": 48, "area": 1536, "score": 1.0}
        columns = {name: [value] * len(numbers) for name, value in boxes.items()}
        names = {"image": [_name_image(n) for n in numbers], "mask": [counts[n % SCENES] for n in numbers]}
        write_shard(run, index, pa.table({**names, **columns, "embedding": embedding}, schema=schema), empty, "made")
    finish_shards(run, len(starts), empty, "made")
    return run


def make_new_rows(folder: Path, count: int) -> None:
    make_clustered_run(folder, count)
    np.save(folder / "new.npy", np.random.default_rng(2).normal(size=(NEW_ROWS, DIMENSION)).astype(np.float32))


def train_small_run(folder: Path, count: int) -> None:
    """`make_images`, and a run of a few others that has a network."""
    make_clustered_run(folder / "trained", 64)
    _open_small_run(folder / "trained").train()
    make_images(folder, count)


def make_rows(folder: Path, count: int) -> None:
    """What each of `ROW_STAGES` begins with, by the stages before it."""
    planted = Path(os.environ["FASTCOMUS_PLANTED"])
    found, _, k = harness.make_planted_rows(planted, count, 0)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "rows.npy", found)
    (folder / "k").write_text(str(k))


def build_graph(folder: Path) -> None:
    rows = np.load(folder / "rows.npy")
    if len(rows) < min(ROWS) // 2:  # the small folder: what many rows are searched by is loaded, too
        build_knn_graph(rows, 30, "euclidean", ClusterConfig().recall, 0, CpuBackend(all_pairs_rows=1_000))
    made = build_knn_graph(rows, 30, "euclidean", ClusterConfig().recall, 0, select("cpu"))
    if not (folder / "graph.npz").exists():
        save_npz(folder / "graph.npz", made.affinity, compressed=False)
        np.save(folder / "order.npy", made.order)


def run_eigenmaps(folder: Path) -> None:
    affinity, order = load_npz(folder / "graph.npz"), np.load(folder / "order.npy")
    made = compute_eigenmaps(affinity, int((folder / "k").read_text()), 0, select("cpu"), order)
    if not (folder / "maps.npy").exists():
        np.save(folder / "maps.npy", made.rows)


def assign_labels(folder: Path) -> None:
    cluster_rows(np.load(folder / "maps.npy"), int((folder / "k").read_text()), "qr", ClusterConfig(), 0, select("cpu"))


def cluster_again(folder: Path) -> None:
    """The masks of the clusters alone: the clusters are there."""
    run = _open_small_run(folder)
    run.folder.remove("iteration-0")
    write_cluster_masks(run.workplace)


def make_export_stage(kind: str) -> Callable[[Path], object]:
    return lambda folder: _open_small_run(folder).export(kind, folder / f"exported-{kind}")


def suggest_count(folder: Path) -> object:
    return _open_small_run(folder).suggest_k(max_k=20)


FEW, MANY, LARGE = (600, 1_200, 2_400), (500, 1_500, 4_500), (3_000, 9_000, 27_000)
ROWS = (31_000, 45_000, 90_000)
STAGES = {
    "train-saliency": Stage(FEW, make_images, lambda at: _open_small_run(at).train_saliency(at / "images"), "image"),
    "embed": Stage(FEW, make_images, lambda at: _open_small_run(at).embed(at / "images"), "image"),
    "graph": Stage(ROWS, make_rows, build_graph),
    "eigenmaps": Stage(ROWS, make_rows, run_eigenmaps),
    "labels": Stage(ROWS, make_rows, assign_labels),
    "pseudo-masks": Stage(MANY, make_clustered_run, cluster_again),
    "suggest-k": Stage((5_500, 11_000, 22_000), make_clustered_run, suggest_count),
    "train": Stage(FEW, make_clustered_run, lambda at: _open_small_run(at).train()),
    "predict": Stage(FEW, train_small_run, lambda at: _open_small_run(at / "trained").predict(at / "images"), "image"),
    "assign": Stage(LARGE, make_new_rows, lambda at: _open_small_run(at).assign(embeddings=at / "new.npy")),
    "evaluate": Stage(MANY, make_clustered_run, lambda at: _open_small_run(at).evaluate(at / "truth"), "image"),
    "report": Stage(LARGE, make_clustered_run, lambda at: _open_small_run(at).report()),
    **{
        f"export {kind}": Stage(MANY, make_clustered_run, make_export_stage(kind))
        for kind in ("coco", "voc", "yolo", "labelme")
    },
    "export onnx": Stage(
        FEW, train_small_run, lambda at: _open_small_run(at / "trained").export("onnx", at / "network.onnx"), "image"
    ),
}


def _open_small_run(folder: Path) -> Run:
    return Run(folder / "run", preset="offline", settings=SMALL, device="cpu", workers=2)


def _name_image(number: int) -> str:
    return f"{number // 1000:03d}/{number:06d}.jpg"


def _make_mask(number: int) -> np.ndarray:
    """(H, W) bool: the left half, a little more of it for every number."""
    return np.broadcast_to(np.arange(SIDE[0]) < 24 + number % SCENES, SIDE[::-1])
