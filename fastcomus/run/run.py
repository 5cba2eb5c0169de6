"""`Run`: one run folder and a method for each command, whose file beside this one is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from fastcomus.config import IMAGE_TRANSFERS, Config
from fastcomus.images.listing import Images
from fastcomus.progress import show_log
from fastcomus.run.check import check_run
from fastcomus.run.contents import list_iterations
from fastcomus.run.first_look import write_first_look
from fastcomus.run.looking import Looking
from fastcomus.run.workplace import Workplace
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import ArrayLike

    from fastcomus.clusters.count import SuggestedCounts
    from fastcomus.clusters.labels import Clusters
    from fastcomus.evaluation.class_maps import Evaluation
    from fastcomus.evaluation.image_labels import LabelEvaluation
    from fastcomus.run import keywords
    from fastcomus.run.embed import Embedded


class Run(Looking):
    """One run folder and the commands on it: `embed`, `cluster`, `train`, `predict`, ..., or all in order by `run`.

    Commands take settings by their names in `config.py` and remember them. They raise InputError: for wrong settings
    before anything is done; for what turns up later (a full disk) when it does, and the same call then goes on.

    Args:
        folder: Where results go; made when something is written.
        preset: Set of defaults: auto, dino, voc, coco or offline; remembered. Another starts again from its settings.
        seed: Seed of everything random; remembered.
        device: auto, cpu, cuda, cuda:N, or several ("cuda:0,cuda:1", "cuda:all") for `embed` and `predict` to share.
        workers: Threads that read images; by default one per core.
        settings: Settings by command, {"cluster": {"k": 14}, ...}, as a TOML file would hold them.
        images: Where the images of `embed` lie now, if they were moved; `cluster` and `train` remember it.
        inference: What runs trained networks on a CPU: auto, torch or openvino (extra openvino), twice as fast.
        deterministic: On a GPU, train to the same bytes every time, which costs time; on the CPU it is always so.
        verbose: Write what is done to standard error; programs with a set-up `logging` hear it in any case.
    """

    __slots__ = ("workplace",)  # setting another attribute would change nothing, without a word

    def __init__(
        self,
        folder: Path | str = "comus-run",
        *,
        preset: str | None = None,
        seed: int | None = None,
        device: str = "auto",
        workers: int | None = None,
        settings: Mapping[str, Any] | None = None,
        images: Path | str = "",
        inference: str = "auto",
        deterministic: bool = False,
        verbose: bool = False,
    ) -> None:
        if verbose:
            show_log()
        self.workplace = Workplace(folder, preset, seed, device, workers, settings, images, inference, deterministic)

    @property
    def folder(self) -> RunFolder:
        """The run folder on disk; its path is `folder.path`."""
        return self.workplace.folder

    @property
    def config(self) -> Config:
        """All settings as they are remembered."""
        return self.workplace.config

    def configure(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay `settings` ({"cluster": {"k": 14}, ...}) over those of the run."""
        self.workplace.lay_over(settings)

    def embed(
        self,
        images: Images,
        *,
        replace: bool = False,
        engine: str = "local",
        address: str = "",
        **settings: Unpack[keywords.EmbedSettings],
    ) -> Embedded:
        """Find the objects in every image and embed them (steps 1 to 3 of the paper); return how many there are.

        Args:
            images: A folder of images or of tars, an image, paths or a file with one a line, an address, or "-": stdin.
            replace: Whether objects of other images than these, which the run folder may hold, are dropped.
            engine: "local", or "ray" to divide the images among the actors of a Ray cluster.
            address: Of the Ray cluster; by default Ray is started on this machine.
            **settings: See `config.EmbedConfig`.
        """
        from fastcomus.run.embed import embed

        return embed(self.workplace, images, replace, engine=engine, address=address, settings=settings)

    def train_saliency(
        self, images: Images, output: Path | str = "", **settings: Unpack[keywords.SaliencySettings]
    ) -> Path:
        """Train a saliency network on unlabelled images alone; return its checkpoint, for `embed(saliency=...)`.

        Args:
            images: As for `embed`.
            output: File to copy the checkpoint to; by default it stays in the run folder.
            **settings: See `config.SaliencyConfig`.
        """
        found = self.workplace.list_images(images)
        from fastcomus.run.train_saliency import train_saliency

        return train_saliency(self.workplace, found, output, settings=settings)

    def objects(self) -> pa.Table:
        """Return what `embed` found, a row for each object: image, box, area, score, mask, embedding."""
        return read_shards(self.folder)

    def cluster(
        self,
        embeddings: Path | ArrayLike | None = None,
        graph: Any = None,
        *,
        levels: bool = False,
        engine: str = "local",
        address: str = "",
        **settings: Unpack[keywords.ClusterSettings],
    ) -> Clusters:
        """Cluster the objects of `embed`, or rows of your own (steps 4 to 7); of objects, write class maps, too.

        Args:
            embeddings: Rows to cluster instead: (N, D), an .npy file, or Parquet with a column `embedding`.
            graph: Links between the objects: an .npz file of SciPy's or a matrix, see `fastcomus.cluster`.
            levels: Whether to write coarser and finer clusters beside them (`Clusters.coarse`, `.fine`).
            engine: As for `embed`, with `address`; the search in a sample (`fit_on`) is shared.
            address: See `engine`.
            **settings: See `config.ClusterConfig`; k = 0 estimates the number of clusters.
        """
        from fastcomus.run.cluster import cluster

        where: dict[str, Any] = {"engine": engine, "address": address}
        return cluster(self.workplace, embeddings, graph, levels=levels, **where, settings=settings)

    def suggest_k(
        self, embeddings: Path | ArrayLike | None = None, **settings: Unpack[keywords.ClusterSettings]
    ) -> SuggestedCounts:
        """Estimate the number of clusters by every criterion; write suggest-k/index.html and counts.json.

        Args:
            embeddings: As for `cluster`.
            **settings: See `config.ClusterConfig`; `choose_k` is the criterion that k = 0 goes by.
        """
        from fastcomus.run.cluster import suggest_k

        return suggest_k(self.workplace, embeddings, settings=settings)

    def train(self, **settings: Unpack[keywords.TrainAndPredictSettings]) -> Path:
        """Train DeepLabv3 on the class maps, several times over, and label all images by each network (steps 9, 10).

        The first iteration learns the clusters' class maps of images that passed the filter, each later one the maps of
        the network before it, with the images of `extend`. Started by torchrun or srun, processes train it together.
        A report that is there is written anew after each iteration. Takes the settings of `config.TrainConfig` and
        `config.PredictConfig`, and returns the last iteration's folder.
        """
        from fastcomus.run.train import train

        last = train(self.workplace, settings=settings, then=self._refresh_report)
        self._refresh_report()  # once it is known how long all of it took
        return last

    def predict(  # noqa: D417
        self,
        images: Images,
        output: Path | str = "",
        *,
        overlay: bool = False,
        probabilities: bool = False,
        quality: str = "",
        engine: str = "local",
        address: str = "",
        **settings: Unpack[keywords.PredictSettings],
    ) -> Path:
        """Label other images by the newest network, a mask NAME.png each; existing up-to-date masks are kept.

        Args:
            images, engine, address: As for `embed`.
            output: Folder for the masks, which is returned; by default `predictions` in the run folder.
            overlay: Also write overlays/NAME.jpg, the image tinted with the masks' colours.
            probabilities: Also write probabilities/NAME.npy, (k + 1, h, w) float16 in [0, 1].
            quality: "fast" or "best" instead of the settings' sizes; "" for these. `settings` given here win.
            **settings: See `config.PredictConfig`.
        """
        from fastcomus.run.predict import predict

        how = {"quality": quality, "engine": engine, "address": address}
        return predict(self.workplace, images, output, overlay, probabilities, **how, settings=settings)

    def assign(  # noqa: D417
        self,
        images: Images = "",
        output: Path | str = "",
        *,
        embeddings: Path | str = "",
        masks: Path | str = "",
        engine: str = "local",
        address: str = "",
        **settings: Unpack[keywords.AssignSettings],
    ) -> Path:
        """Put new objects into the clusters that are there; return assigned.parquet with their clusters and novelty.

        Args:
            images: Images whose objects are found and embedded as this run's were; or give `embeddings`.
            output: Folder for assigned.parquet; by default `assigned` in the run folder.
            embeddings: New rows: an .npy file, or a Parquet file with a column `embedding`.
            masks: Folder of object masks of the new images, where the run had masks of its own.
            engine, address: As for `embed`.
            **settings: See `config.AssignConfig`.
        """
        from fastcomus.run.assign import assign

        where = {"engine": engine, "address": address}
        return assign(self.workplace, images, output, embeddings=embeddings, masks=masks, settings=settings, **where)

    def evaluate(
        self,
        truth: Path | str,
        classes: Path | str = "",
        iteration: int | None = None,
        *,
        fit_on: Path | str = "",
        bootstrap: int = 0,
    ) -> Evaluation | LabelEvaluation:
        """Score the masks of an iteration against truth (step 11), and store the scores in evaluation/.

        Args:
            truth: A folder of class masks, "voc:PATH@val", "coco:PATH@val2017" or "folders:DIR".
            classes: File with a class name a line, background first.
            iteration: Iteration to score; by default the last.
            fit_on: A split or list file of other images to match clusters to classes on; by default the scored ones.
            bootstrap: How often images are drawn again for 95 % intervals; 0 gives none.

        Returns:
            IoU by class and matching; accuracy by class where truth is a class for each image.
        """
        from fastcomus.run.evaluate import evaluate

        return evaluate(self.workplace, truth, classes, iteration, fit_on=fit_on, bootstrap=bootstrap)

    def export(
        self, format: str, output: Path | str = "", iteration: int | None = None, *, transfer: str = IMAGE_TRANSFERS[0]
    ) -> Path:
        """Write the masks of an iteration with their images in the format of another tool.

        Args:
            format: One of `exports.export.FORMATS` such as "coco"; "onnx" writes the network instead.
            output: New folder, by default exports/iteration-N-FORMAT, with -2 beside an earlier one; for "onnx" a file.
            iteration: Iteration whose masks to take; by default the last.
            transfer: "link" shares disk space with the images where it can, "copy" does not.
        """
        from fastcomus.run.export import export, export_onnx

        if format == "onnx":
            return export_onnx(self.workplace, output, iteration)
        return export(self.workplace, format, output, iteration, transfer)

    def run(  # noqa: D417
        self,
        images: Images,
        truth: Path | str = "",
        classes: Path | str = "",
        *,
        replace: bool = False,
        report: bool = False,
    ) -> list[Evaluation | LabelEvaluation]:
        """Run `embed`, `cluster` and `train` in order, skipping what is up to date.

        Args:
            images, replace: As for `embed`.
            truth: As for `evaluate`, whose results are returned for each iteration; "" scores nothing.
            classes: As for `evaluate`.
            report: Write the report as soon as there are clusters, and anew after each iteration.
        """
        with self.workplace.hold_folder():
            found = check_run(self.workplace, images, truth, classes)
            if report:
                write_first_look(found, self.workplace)
            self.embed(found, replace=replace)
            self.cluster()
            scores = [self.evaluate(truth, classes, 0)] if truth else []  # bad truth and names are told before training
            if report:
                self.report()
            self.train()
            return scores + [self.evaluate(truth, classes, one) for one in list_iterations(self.folder)[1:] if truth]
