"""The stages in order, on a run folder.

`Run` is what the command line and Python users drive. Each method resolves the settings, checks the input before
anything is written or loaded, skips what is up to date, calls the stage and stores what it returns.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastcomus.backends import choose
from fastcomus.clusters.cluster import check_count, cluster_embeddings, suggest_counts
from fastcomus.clusters.count import SuggestedCounts
from fastcomus.clusters.files import (
    read_clusters,
    read_eigenmaps,
    read_names,
    read_names_file,
    tell_stale_names,
    write_clusters,
    write_names,
)
from fastcomus.clusters.labels import Clusters
from fastcomus.clusters.named_masks import ClassMaps
from fastcomus.clusters.names import ClusterNames
from fastcomus.config import IMAGE_TRANSFERS, STAGES, ClusterConfig, Config
from fastcomus.errors import InputError
from fastcomus.images.found import ImageList
from fastcomus.images.listing import find_listed_images, open_root
from fastcomus.images.names import check_names
from fastcomus.images.roots import ImageRoot
from fastcomus.images.stamps import stamp_file, stamp_images
from fastcomus.interruption import reach_safe_point
from fastcomus.networks import weights
from fastcomus.processes import detect_process_group
from fastcomus.progress import count, show_progress
from fastcomus.run.embed import Embedded
from fastcomus.run.engines.several_devices import parse_devices
from fastcomus.run.preset import choose_preset
from fastcomus.run.stage import read_stage_seconds, report_stage, require_sole_writer
from fastcomus.run.workplace import _find_saliency_networks, _read_embedding_rows
from fastcomus.settings import resolve, to_dict, with_settings
from fastcomus.store.embeddings import check_embeddings, read_embeddings
from fastcomus.store.masks import get_mask_path, write_class_map
from fastcomus.store.objects_table import (
    count_shard_rows,
    finish_shards,
    has_shard,
    iterate_shards,
    read_part_digests,
    read_shards,
    write_shard,
)
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

if TYPE_CHECKING:
    from fastcomus.evaluation.class_maps import Evaluation
    from fastcomus.evaluation.image_labels import LabelEvaluation
    from fastcomus.run.engines.work import Engine
    from fastcomus.run.workplace import ImageSource


log = logging.getLogger("fastcomus")


class Run:
    """One run folder and the stages on it: `embed`, `cluster`, `train`, `predict`, `evaluate`, or all by `run`.

    `assign` puts new objects into the clusters.

    `folder`: where results go (made when missing). `preset`: auto, voc, coco, dino or offline; `seed`: of everything
    random; both are remembered in the folder. `device`: auto, cpu, cuda, cuda:N, or several ("cuda:0,cuda:1",
    "cuda:all"), which `embed` and `predict` share, a process for each; other stages take the first. `workers`: threads
    that read images, by default one per core. `settings`: {"cluster": {"k": 14}, ...}, as a TOML file would hold them.

    Every stage takes settings by the names of its dataclass in `config.py`; they are remembered too. InputError (a
    sentence for the user) is raised before anything is computed or written.
    """

    def __init__(
        self,
        folder: Path | str = "comus-run",
        *,
        preset: str | None = None,
        seed: int | None = None,
        device: str = "auto",
        workers: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = RunFolder(folder)
        self.processes = detect_process_group()
        self.wanted_device = device
        self.devices = parse_devices(device)
        for one in self.devices[1:]:
            choose.resolve_device(one)
        self.backend = choose.select(self.processes.choose_device(self.devices[0]))
        if workers is not None and workers < 0:
            raise InputError(f"workers must be at least 1, or 0 for one per core; got {workers}.")
        self.asked_workers = workers or None
        self.workers = workers or os.cpu_count() or 1
        state = self.folder.read_state() or {}
        self._images: str = state.get("images", "")
        self.config = resolve(state.get("config"), preset, seed, settings or {}, choose_preset)

    def configure(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay `settings` ({"cluster": {"k": 14}, ...}) over those of the run, for the stages to come."""
        self.config = with_settings(self.config, settings)

    @require_sole_writer
    @report_stage
    def embed(
        self, images: Path | str | ImageList, *, engine: str = "local", address: str = "", **settings: Any
    ) -> Embedded:
        """Find the objects of every image of `images` (see `predict`) and embed them; `objects()` gives the rows.

        `engine`: "local", or "ray": on the cluster at `address`, by default on a Ray of its own on this machine.
        """
        from fastcomus.objects.embedding import list_lost_images
        from fastcomus.objects.saliency.methods import check_saliency
        from fastcomus.run.embed import EmbeddedShard, ShardOfImages, make_embed_work
        from fastcomus.store.objects_table import SKIPPED_SCHEMA

        config = with_settings(self.config, {"embed": settings})
        chosen_engine = self._choose_engine(engine, address)
        chosen = config.embed
        found = find_listed_images(images)
        check_names(found.names, self.folder.path)
        check_saliency(chosen)
        weights.check_name(chosen.encoder)

        size = chosen.shard_images
        shards = [found.names[i : i + size] for i in range(0, len(found.names), size)]
        masks = Path(chosen.masks) if chosen.masks else None
        files = [Path(name) for name in (chosen.saliency, chosen.encoder_weights) if Path(name).is_file()]
        checkpoints = [stamp_file(file) for file in files]
        prints = [
            compute_fingerprint(
                config=asdict(chosen), checkpoints=checkpoints, images=stamp_images(found, shard, masks)
            )
            for shard in shards
        ]
        whole = compute_fingerprint(shards=prints, skipped=[asdict(item) for item in found.skipped])
        parts = read_part_digests(self.folder)
        missing = [i for i in range(len(shards)) if not has_shard(self.folder, i, prints[i], parts.get(i, ""))]
        if self.folder.is_current("objects", whole) and not missing:
            self._remember(config, found.root)
            log.info("embed: up to date, %d images", len(found.names))
            return self._count_embedded(len(found.names))

        def store(made: EmbeddedShard) -> None:
            nonlocal whole
            i, shard = made.index, made.shard
            if lost := list_lost_images(shard.skipped):  # under another fingerprint: the next run looks for them again
                prints[i] = compute_fingerprint(shard=prints[i], lost=lost)
                whole = compute_fingerprint(shards=prints, skipped=[asdict(item) for item in found.skipped])
            write_shard(self.folder, i, shard.objects, shard.skipped, prints[i])

        work, pieces = make_embed_work(found.root, chosen), [ShardOfImages(i, shards[i]) for i in missing]
        done = len(found.names) - sum(len(shards[i]) for i in missing)
        with (
            show_progress("embed", len(found.names), "images", done) as advance,
            chosen_engine.stream_results(work, pieces, store, advance) as stored,
        ):
            self._remember(config, found.root)
            self.folder.remove("objects/manifest.json")
            for _ in stored:
                reach_safe_point()
        listed = [{**asdict(item), "width": 0, "height": 0} for item in found.skipped]
        finish_shards(self.folder, len(shards), pa.Table.from_pylist(listed, schema=SKIPPED_SCHEMA), whole)
        embedded = self._count_embedded(len(found.names))
        log.info("embed: %d images looked at, %d objects found", embedded.images, embedded.objects)
        self._tell_skipped()
        return embedded

    @require_sole_writer
    @report_stage
    def train_saliency(self, images: Path | str, output: Path | str = "", **settings: Any) -> Path:
        """Train a saliency network on every image under `images`, from nothing but these; its checkpoint, which
        `embed(saliency=...)` takes. `output`: a file to copy it to."""
        from fastcomus.objects.saliency.network_map import check_network
        from fastcomus.run.train_saliency import train_saliency

        config = with_settings(self.config, {"saliency": settings})
        found = find_listed_images(images)
        check_network(config.saliency.network)
        weights.check_name(config.saliency.refine_backbone)
        self._remember(config)
        stamp = compute_fingerprint(images=stamp_images(found, found.names, None))
        made = train_saliency(found.root, found.names, stamp, self.folder, config, self.backend, self.workers)
        if output:
            with RunFolder(Path(output).parent).replace_file(Path(output).name) as path:
                shutil.copyfile(made, path)
            made = Path(output)
        return made

    def objects(self) -> pa.Table:
        """What `embed` found, a row per object: `objects.make_object_schema`."""
        return read_shards(self.folder)

    @require_sole_writer
    @report_stage
    def cluster(self, embeddings: Path | str | np.ndarray | None = None, **settings: Any) -> Clusters:
        """Cluster the objects of `embed`, or rows of your own: an array (N, D), an .npy file, or Parquet with a column
        `embedding`. With images, the class maps of the clusters are written too (iteration 0)."""
        config = with_settings(self.config, {"cluster": settings})
        has_images = embeddings is None
        if embeddings is None:
            rows, source = (
                _read_embedding_rows(self.folder),
                str((self.folder.read_manifest("objects") or {})["fingerprint"]),
            )
        else:
            rows, source = read_embeddings(embeddings)
        rows = check_embeddings(rows)
        check_count(config.cluster, rows)
        self._remember(config)

        whole = compute_fingerprint(config=asdict(config.cluster), seed=config.seed, source=source)
        if self.folder.is_current("clusters", whole):
            clusters = read_clusters(self.folder)
            log.info("cluster: up to date, %d objects in %d clusters", len(rows), len(clusters.sizes))
        else:
            self.folder.begin("clusters", whole)
            found = cluster_embeddings(rows, config.cluster, config.seed, self.backend)
            clusters = found.clusters
            images = read_shards(self.folder, ["image"])["image"] if has_images else None
            write_clusters(self.folder, clusters, found.maps, images)
            file = str(Path(embeddings).resolve()) if isinstance(embeddings, Path | str) else ""
            facts = {"k": len(clusters.sizes), "objects": len(rows), "images": has_images, "source": source}
            facts.update(config=asdict(config.cluster), embeddings=file)
            self.folder.finish("clusters", whole, **facts, **found.collect_facts())
            log.info(
                "cluster: %d objects in %d clusters of %d to %d",
                len(rows),
                len(clusters.sizes),
                clusters.sizes[-1],
                clusters.sizes[0],
            )
            tell_stale_names(self.folder, self._read_clusters_manifest())
        if has_images:
            self._write_cluster_masks(clusters, whole)
        count(objects=len(rows), clusters=len(clusters.sizes))
        return clusters

    @require_sole_writer
    @report_stage
    def suggest_k(self, embeddings: Path | str | np.ndarray | None = None, **settings: Any) -> SuggestedCounts:
        """How many clusters the objects of `embed`, or rows of your own, hold, by every criterion; `cluster` with k = 0
        goes by `choose_k`. Writes suggest-k/index.html with the curves behind the numbers, and counts.json."""
        from fastcomus.report.count_page import write_count_page

        config = with_settings(self.config, {"cluster": settings})
        rows = _read_embedding_rows(self.folder) if embeddings is None else read_embeddings(embeddings)[0]
        rows = check_embeddings(rows)
        check_count(replace(config.cluster, k=0, method="spectral"), rows)
        self._remember(config)
        suggested = suggest_counts(rows, config.cluster, config.seed, self.backend)
        count(objects=suggested.objects, **suggested.counts)
        self.folder.write_json("suggest-k/counts.json", asdict(suggested))
        log.info("suggest-k: open %s", write_count_page(self.folder, suggested, config.cluster.choose_k))
        return suggested

    def name(self, names: Mapping[int, str] | Path | str | None = None) -> ClusterNames:
        """Give clusters names, by number; equal names merge clusters, "-" drops one into the background. `predict`,
        `evaluate`, `assign` and `export` go by them.

        `names`: {3: "cat"}, laid over the names that are there, or a names.toml, which takes their place. Returns all
        names; without `names`, those that are there.
        """
        clusters = self._read_clusters_manifest()
        if not names:
            return read_names(self.folder, clusters)  # also while another process writes to the folder
        with self.folder.writer.hold():
            if isinstance(names, Mapping):
                given = {**dict(read_names(self.folder, clusters).given), **names}
            else:
                given = dict(read_names_file(Path(names), clusters).given)
            return write_names(self.folder, clusters, given)

    @require_sole_writer
    @report_stage
    def train(self, **settings: Any) -> Path:
        """Train DeepLabv3 on the class maps, `iterations` times, each network writing its own; the last one's folder.

        The first iteration learns the clusters' class maps of the images that passed the filter, every later one the
        maps of the network before it, with the images of `extend` as well. Takes PredictConfig's settings too.

        Started several times by torchrun (or srun), the processes train one network together, each on its own device.
        """
        from fastcomus.run.train import measure_agreement, run_iteration
        from fastcomus.run.workplace import ImageSource, Surroundings
        from fastcomus.segmentation.pseudo_masks import select_training_images
        from fastcomus.segmentation.samples import Sample

        config = with_settings(self.config, _sort_by_stage(settings, "train", "predict"))
        clusters, source = self._read_clusters_manifest(), self._open_image_source()
        self._check_source(clusters, str((self.folder.read_manifest("objects") or {})["fingerprint"]))
        self._list_iterations()
        weights.check_name(config.train.backbone)
        sources = [source]
        if config.train.extend:
            more = find_listed_images(config.train.extend)
            check_names(more.names, self.folder.path)
            stamp = compute_fingerprint(images=stamp_images(more, more.names, None))
            sources.append(ImageSource(more.root, more.names, "extend", stamp))
        if self.processes.is_first:
            self._remember(config)

        rows = self.folder.read_table("clusters/clusters.parquet", ["image", "is_core"])
        core = select_training_images(rows["image"].to_pylist(), rows["is_core"].to_numpy(zero_copy_only=False))
        samples = [Sample(source.root / name, get_mask_path("iteration-0", name)) for name in core]
        follows = str((self.folder.read_manifest("iteration-0") or {})["fingerprint"])
        at = Surroundings(self.folder, config, self.backend, self.workers, self.processes)
        count(images=0, masks=0)  # those of iterations that are up to date do not count
        with self.processes.connect(self.backend.device):
            for iteration in range(1, config.train.iterations + 1):
                follows, samples = run_iteration(iteration, samples, sources, clusters["k"], follows, at)
                count(iterations=1)
                if iteration > 1 and config.train.stop_agreement:
                    agreement = measure_agreement(iteration, sources, at)
                    log.info("iteration-%d: masks agree with those before on %.3f", iteration, agreement)
                    if agreement >= config.train.stop_agreement:
                        break
        return self.folder.path / f"iteration-{iteration}"

    @report_stage
    def predict(
        self,
        images: Path | str,
        output: Path | str = "",
        *,
        overlay: bool = False,
        probabilities: bool = False,
        engine: str = "local",
        address: str = "",
        **settings: Any,
    ) -> Path:
        """Class maps of other images by the newest network, as `output`/NAME.png; by default in the run folder's
        `predictions`. `images`: a folder, an image, a file with a path a line, or "-" for standard input. What else is
        written: `prediction_folder.write_predictions`. `engine`, `address`: as for `embed`."""
        from fastcomus.run.predict import PredictedImages, write_predictions

        config = with_settings(self.config, {"predict": settings})
        chosen_engine = self._choose_engine(engine, address)
        newest, names = self._choose_trained_iteration(None), self.name()
        found = find_listed_images(images)
        check_names(found.names, Path(output or self.folder.path / "predictions"))
        wanted = PredictedImages(found, stamp_images(found, found.names, None))
        target = RunFolder(output or self.folder.path / "predictions")
        with target.writer.hold():
            masks, skipped = write_predictions(
                wanted, target, overlay, probabilities, self.folder, newest, names, config, chosen_engine
            )
        count(images=masks, skipped=len(skipped))
        log.info("predict: masks of %d images in %s, %d skipped", masks, target.path, len(skipped))
        return target.path

    @require_sole_writer
    @report_stage
    def export_onnx(self, output: Path | str = "", iteration: int | None = None) -> Path:
        """The network of `iteration` (the last by default) as an ONNX file, by default segmenter.onnx in the run; what
        goes in and comes out: `onnx_export.LabelledImages`. Needs the packages of the extra `onnx`."""
        from fastcomus.segmentation.onnx import check_onnx, write_onnx

        chosen, names = self._choose_trained_iteration(iteration), self.name()
        check_onnx()
        from fastcomus.segmentation.files import load_segmenter

        manifest = self.folder.read_manifest(f"iteration-{chosen}") or {}
        facts = {name: str(manifest[name]) for name in ("k", "backbone", "output_stride")}
        target = Path(output or self.folder.path / "segmenter.onnx")
        with RunFolder(target.parent).replace_file(target.name) as path:
            write_onnx(load_segmenter(self.folder, chosen), names, {**facts, "iteration": str(chosen)}, path)
        count(bytes=target.stat().st_size, classes=len(names.classes))
        log.info("export: the network of iteration %d in %s", chosen, target)
        return target

    def export(
        self, format: str, output: Path | str = "", iteration: int | None = None, *, images: str = IMAGE_TRANSFERS[0]
    ) -> Path:
        """The masks of `iteration` (the last by default) with their images as "coco", "voc", "yolo" or "labelme", in a
        new folder, by default exports/iteration-N-FORMAT in the run (`exports`). `images`: "link" or "copy". Of
        "onnx" it is `export_onnx`."""
        return (
            self.export_onnx(output, iteration) if format == "onnx" else self._export(format, output, iteration, images)
        )

    @report_stage
    def _export(self, format: str, output: Path | str, iteration: int | None, images: str) -> Path:
        from fastcomus.exports.export import Transfer, export_masks

        masks, source = self._select_class_maps(iteration)
        target = Path(output or self.folder.path / f"exports/iteration-{masks.iteration}-{format}")
        written = export_masks(format, masks, Transfer(source.root, images, self.config.embed.max_pixels), target)
        count(images=written, classes=masks.k)
        log.info("export: the masks of %d images, iteration %d, in %s", written, masks.iteration, target)
        return target

    @require_sole_writer
    @report_stage
    def assign(
        self,
        images: Path | str = "",
        output: Path | str = "",
        *,
        embeddings: Path | str = "",
        masks: Path | str = "",
        **settings: Any,
    ) -> Path:
        """Clusters of objects that were not there when the clusters were made, without clustering again.

        `images`: a folder whose objects are found and embedded as this run's were, with `masks` where the run had
        masks of its own; or `embeddings`: rows of your own, as in `cluster`. Writes `output`/assigned.parquet (by
        default in the run folder's `assigned`), a row per object: image and box where there are any, cluster,
        distance, novelty, is_outlier (see `assignment.Assigned`), and name where clusters were given names.
        """
        from fastcomus.clusters.assignment import assign_embeddings

        config = with_settings(self.config, {"assign": settings})
        if bool(images) == bool(embeddings):
            raise InputError("give either a folder of images or --embeddings FILE.")
        if bool(config.embed.masks and images) != bool(masks):
            raise InputError(
                "the objects of this run come from masks of your own; give those of the new images with --masks DIR."
                if images and not masks
                else "--masks is for new images of a run whose own objects came from masks; leave it out."
            )
        manifest, names = self._read_clusters_manifest(), self.name()
        rows = self._read_clustered_rows(manifest)
        target = RunFolder(output or self.folder.path / "assigned")
        if images:
            new = Run(
                target.path,
                preset=self.config.preset,
                device=str(self.backend.device),
                workers=self.workers,
                settings=to_dict(self.config),
            )
            new.embed(images, masks=str(masks))
            table, wanted = read_shards(target, ["image", "x0", "y0", "x1", "y1"]), _read_embedding_rows(target)
        else:
            wanted = read_embeddings(embeddings)[0]
            table = pa.table({"row": np.arange(len(wanted))})
        wanted = check_embeddings(wanted)
        if len(wanted) and wanted.shape[1] != rows.shape[1]:
            raise InputError(
                f"the clustered embeddings have {rows.shape[1]} numbers each and the new ones {wanted.shape[1]}; "
                "both must come from the same encoder."
            )
        self._remember(config)
        clustered_by = ClusterConfig(**manifest["config"])
        found = assign_embeddings(
            wanted,
            rows,
            read_clusters(self.folder),
            read_eigenmaps(self.folder) if clustered_by.method == "spectral" else None,
            clustered_by,
            config.assign.outliers,
            config.seed,
            self.backend,
        )
        for name, column in (
            ("cluster", found.labels),
            ("distance", found.distances),
            ("novelty", found.novelty),
            ("is_outlier", found.is_outlier),
        ):
            table = table.append_column(name, pa.array(column))
        if names.given:
            table = table.append_column("name", pa.array([names.get_name(one) for one in found.labels], pa.string()))
        target.write_table("assigned.parquet", table)
        clusters, outliers = len(np.unique(found.labels)), int(found.is_outlier.sum())
        count(objects=len(table), clusters=clusters, outliers=outliers)
        told = len(table), clusters, outliers, target.resolve_file("assigned.parquet")
        log.info("assign: %d objects in %d clusters, %d unlike anything; %s", *told)
        return target.resolve_file("assigned.parquet")

    @require_sole_writer
    @report_stage
    def evaluate(
        self,
        truth: Path | str,
        classes: Path | str = "",
        iteration: int | None = None,
        *,
        fit_on: Path | str = "",
        bootstrap: int = 0,
    ) -> Evaluation | LabelEvaluation:
        """Score the class maps of an iteration (the last one by default) against truth: a folder of masks, or
        "voc:PATH@val", "coco:PATH@val2017", "folders:DIR" (`datasets.parse_source`).

        `classes`: file of class names. `fit_on`: a split or list file of other images to match clusters to classes on.
        `bootstrap`: how often images are drawn again for an interval.
        """
        from fastcomus.run.evaluate import evaluate_run

        maps, _ = self._select_class_maps(iteration)
        named = Path(classes) if classes else None
        evaluation = evaluate_run(maps, str(truth), named, str(fit_on), bootstrap, self.config.seed)
        count(images=evaluation.images, missing=evaluation.missing)
        return evaluation

    @require_sole_writer
    @report_stage
    def report(self, **settings: Any) -> Path:
        """Pages for a browser, in the run folder's `report`: what was found, a map, a card per cluster where names can
        be given, images with their masks, curves and scores as far as there are any; where index.html lies."""
        from fastcomus.report.findings import Findings, FoundObjects
        from fastcomus.report.shown_names import ShownNames
        from fastcomus.report.write import write_report

        config = with_settings(self.config, {"report": settings})
        manifest, names = self._read_clusters_manifest(), ShownNames(self.name())
        rows, objects = self._read_clustered_rows(manifest), None
        if manifest["images"]:
            source, table = self._open_image_source(), read_shards(self.folder, ["image", "x0", "y0", "x1", "y1"])
            boxes = np.stack([table[side].to_numpy() for side in ("x0", "y0", "x1", "y1")], axis=1)
            objects = FoundObjects(source.root, tuple(table["image"].to_pylist()), boxes)
        self._remember(config)
        found = Findings(
            folder=self.folder,
            config=config,
            device=str(self.backend.device),
            notes=tuple((self.folder.read_state() or {}).get("notes", [])),
            seconds=read_stage_seconds(self.folder),
            clusters=read_clusters(self.folder),
            clusters_fingerprint=manifest["fingerprint"],
            rows=rows,
            objects=objects,
            image_names=source.names if objects else (),
            skipped=tuple(self._read_skipped().to_pylist()) if objects else (),
            iterations=tuple(self._list_iterations()) if objects else (),
            names=names,
        )
        count(objects=len(rows), clusters=len(found.clusters.sizes), images=len(found.image_names))
        return write_report(found, self.backend, self.workers)

    @require_sole_writer
    def run(
        self, images: Path | str, truth: Path | str = "", classes: Path | str = ""
    ) -> list[Evaluation | LabelEvaluation]:
        """All stages in order, skipping what is up to date; an evaluation of every iteration when `truth` is given."""
        from fastcomus.evaluation.truth.read import read_truth

        weights.check_name(self.config.train.backbone)
        found = find_listed_images(images)
        if self.config.train.extend:
            find_listed_images(self.config.train.extend)
        if truth:
            read_truth(str(truth), Path(classes) if classes else None, found.names)
        self.embed(found)
        self.cluster()
        if truth:
            self.name()  # names of other clusters are told before training, not after it
        self.train()
        return [self.evaluate(truth, classes, iteration) for iteration in self._list_iterations()] if truth else []

    def _choose_engine(self, name: str, address: str) -> Engine:
        from fastcomus.run.engines.choose import choose_engine

        cores = os.cpu_count() or 1
        return choose_engine(name, address, self.wanted_device, self.devices, self.backend, self.asked_workers, cores)

    # -- what the folder holds ---------------------------------------------------------------------------------

    def _remember(self, config: Config, images: ImageRoot | None = None) -> None:
        """Write the settings into run.json, with what a reader of the results must know about them."""
        if images is not None:
            self._images = str(images.resolve() if isinstance(images, Path) else images)
        self.config = config
        networks = {config.embed.encoder, config.train.backbone, *_find_saliency_networks(config)}
        supervised = sorted(name for name in networks if weights.is_supervised(name))
        notes = [f"{name} was trained with human labels (ImageNet's classes)." for name in supervised]
        state = {"images": self._images, "config": to_dict(config), "notes": notes if self._images else []}
        stored = self.folder.read_state() or {}
        if {"format": stored.get("format"), **state} != stored:
            self.folder.write_state(state)
        for note in state["notes"]:
            if note not in stored.get("notes", []):
                log.warning("note: %s", note)

    def _tell_skipped(self) -> None:
        """Say which images are left out and why: each one of a few, the counts of many."""
        skipped = self._read_skipped().to_pylist()
        if len(skipped) <= 5:
            for row in skipped:
                detail = f" ({row['detail']})" if row["detail"] else ""
                log.info("embed: left out %s: %s%s", row["image"], row["reason"], detail)
            return
        for reason, images in Counter(row["reason"] for row in skipped).most_common():
            log.info("embed: left out %d images: %s", images, reason)
        log.info("embed: their names are in %s", self.folder.resolve_file("objects/skipped.parquet"))

    def _read_clustered_rows(self, manifest: Mapping[str, Any]) -> np.ndarray:
        """The embeddings (N, D) that the clusters were made of; InputError when they changed since."""
        if manifest["images"]:
            rows = _read_embedding_rows(self.folder)
            source = str((self.folder.read_manifest("objects") or {})["fingerprint"])
        elif manifest["embeddings"]:
            rows, source = read_embeddings(manifest["embeddings"])
        else:
            raise InputError("these clusters were made of an array in memory; cluster an .npy file to assign to them.")
        self._check_source(manifest, source)
        return check_embeddings(rows)

    def _check_source(self, clusters: Mapping[str, Any], now: str) -> None:
        if clusters["source"] != now:
            raise InputError(
                f"the clusters in {self.folder.path} are not of the objects that are there now; run fastcomus cluster."
            )

    def _write_cluster_masks(self, clusters: Clusters, follows: str) -> None:
        """Iteration 0: the class maps of the clusters themselves."""
        from fastcomus.segmentation.pseudo_masks import assemble_class_maps

        stage = compute_fingerprint(follows=follows)
        if self.folder.is_current("iteration-0", stage):
            return
        self.folder.begin("iteration-0", stage)
        skipped = self._read_skipped()
        with show_progress("cluster masks", len(clusters.labels) + len(skipped), "images") as advance:
            parts = iterate_shards(self.folder, ["image", "width", "height", "score", "mask"])
            for class_map in assemble_class_maps(parts, clusters.labels, skipped, self.backend):
                write_class_map(self.folder, get_mask_path("iteration-0", class_map.image), class_map.labels)
                advance(1)
                reach_safe_point()
        self.folder.finish("iteration-0", stage, follows=follows)

    def _list_iterations(self) -> list[int]:
        """Iterations whose masks follow from the clusters that are there now: [0, 1, ...]; InputError when none."""
        follows = self._read_clusters_manifest()["fingerprint"]
        done: list[int] = []
        while (manifest := self.folder.read_manifest(f"iteration-{len(done)}")) and manifest["follows"] == follows:
            follows = manifest["fingerprint"]
            done.append(len(done))
        if not done:
            raise InputError(f"there are no masks in {self.folder.path}; run fastcomus embed, then fastcomus cluster.")
        return done

    def _select_class_maps(self, wanted: int | None) -> tuple[ClassMaps, ImageSource]:
        """The named class maps of the iteration `wanted`, or the last, and the images they belong to."""
        done = self._list_iterations()
        chosen = done[-1] if wanted is None else wanted
        if chosen not in done:
            raise InputError(f"--iteration must be one of {', '.join(map(str, done))}; got {chosen}.")
        source = self._open_image_source()
        return ClassMaps(self.folder, chosen, source.names, self.name(), self.backend, self.workers), source

    def _choose_trained_iteration(self, wanted: int | None) -> int:
        """`wanted`, or the last; InputError when it has no network."""
        done = self._list_iterations()[1:]
        if not done:
            raise InputError(f"training has not finished an iteration in {self.folder.path}; run fastcomus train.")
        if wanted is not None and wanted not in done:
            raise InputError(f"--iteration must be one of {', '.join(map(str, done))}; got {wanted}.")
        return done[-1] if wanted is None else wanted

    def _read_clusters_manifest(self) -> dict[str, Any]:
        manifest = self.folder.read_manifest("clusters")
        if manifest is None and not self.folder.path.exists():
            raise InputError(f"there is no run folder {self.folder.path}; run fastcomus run FOLDER, or check --run.")
        if manifest is None:
            raise InputError(f"there are no clusters in {self.folder.path}; run fastcomus cluster --k K first.")
        return manifest

    def _open_image_source(self) -> ImageSource:
        """The images of `embed` that could be read; InputError when their folder is gone."""
        from fastcomus.run.workplace import ImageSource

        if not self._images:
            raise InputError(f"{self.folder.path} holds no images, only embeddings; run fastcomus embed FOLDER first.")
        objects = read_shards(self.folder, ["image"])["image"].to_pylist()
        readable = [row["image"] for row in self._read_skipped().to_pylist() if row["width"]]
        names = tuple(sorted({*objects, *readable}))
        return ImageSource(open_root(self._images, names), names)

    def _count_embedded(self, images: int) -> Embedded:
        embedded = Embedded(images, count_shard_rows(self.folder), len(self._read_skipped()))
        count(**asdict(embedded))
        return embedded

    def _read_skipped(self) -> pa.Table:
        return self.folder.read_table("objects/skipped.parquet")


def cluster(embeddings: np.ndarray, k: int = 0, *, seed: int = 0, device: str = "auto", **settings: Any) -> Clusters:
    """Cluster rows in memory: graph, eigenmaps, k-means, filter. Writes nothing.

    `embeddings`: (N, D) floats, finite. `k`: 0 finds the number of clusters. `settings`: of `config.ClusterConfig`.
    Raises InputError for bad input.
    """
    rows = check_embeddings(embeddings)
    config = with_settings(Config(seed=seed), {"cluster": {"k": k, **settings}}).cluster
    check_count(config, rows)
    return cluster_embeddings(rows, config, seed, choose.select(device)).clusters


def _sort_by_stage(settings: Mapping[str, Any], *stages: str) -> dict[str, dict[str, Any]]:
    """Sort settings under the first of `stages` that has them; unknown ones under the first, which tells."""

    sorted_settings: dict[str, dict[str, Any]] = {stage: {} for stage in stages}
    for name, value in settings.items():
        owner = next((s for s in stages if name in {f.name for f in fields(STAGES[s])}), stages[0])
        sorted_settings[owner][name] = value
    return sorted_settings
