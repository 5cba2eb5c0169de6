"""`predict`: label other images with the newest network, and draw overlays or write probabilities on request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcomus.clusters.files import read_names
from fastcomus.clusters.names import ClusterNames
from fastcomus.config import Config
from fastcomus.errors import InputError, suggest_names
from fastcomus.images.found import Skipped
from fastcomus.images.listing import Images
from fastcomus.images.names import check_names
from fastcomus.images.roots import ImageRoot, make_root_absolute
from fastcomus.interruption import reach_safe_point
from fastcomus.progress import count, show_progress
from fastcomus.run.contents import choose_trained_iteration, read_clusters_manifest
from fastcomus.run.engines.work import Engine, Loaded, Stored
from fastcomus.run.labelling_settings import QUALITIES, choose_quality, describe_prediction
from fastcomus.run.predicted_folder import PredictedFolder, check_target
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend
    from fastcomus.segmentation.class_scores import Prediction

log = logging.getLogger("fastcomus")


@stage(writes=False)
def predict(
    at: Workplace,
    images: Images,
    output: Path | str,
    overlay: bool,
    probabilities: bool,
    *,
    quality: str,
    engine: str,
    address: str,
    settings: Mapping[str, Any],
) -> Path:
    """Label images with the newest network and return the folder of masks; see `Run.predict`."""
    if quality not in QUALITIES:
        raise InputError(f"quality must be 'fast', 'best' or ''; got {quality!r}{suggest_names(quality, QUALITIES)}")
    chosen_engine = at.choose_engine(engine, address)
    newest = choose_trained_iteration(at.folder, None)
    names = read_names(at.folder, read_clusters_manifest(at.folder))
    found = at.list_images(images)
    config = with_settings(at.config, {"predict": {**choose_quality(quality, at.config.preset), **settings}})
    target = RunFolder(output or at.folder.path / "predictions")
    check_names(found.names, target.path)
    from fastcomus.segmentation.labelling_network import WORTH_IT_FROM

    inference = at.choose_inference(len(found.names), WORTH_IT_FROM)
    work = PredictWork(
        at.folder.path.absolute(),
        newest,
        make_root_absolute(found.root),
        names,
        overlay,
        probabilities,
        config,
        inference,
    )
    check_target(target)
    with target.writer.hold():
        folder = PredictedFolder(target, found, *_describe(work, at.folder))
        if others := folder.count_masks_of_other_networks():
            told = "predict: %d masks in %s are of an earlier network and stay; delete them, or choose another --output"
            log.warning(told, others, target.path)
        _fill(work, folder, target, chosen_engine)
    masks, skipped = len(found.names) - len(folder.skipped), len(folder.skipped) + len(found.skipped)
    count(images=masks, skipped=skipped)
    log.info("predict: masks of %d images in %s, %d skipped", masks, target.path, skipped)
    return target.path


def _fill(work: PredictWork, folder: PredictedFolder, target: RunFolder, engine: Engine) -> None:
    """Label the images that are not done and write their files to `target`."""
    folder.drop_stale()
    done = folder.find_done(work.overlay, work.probabilities)
    pieces = [Window(one, frozenset(done.intersection(one))) for one in folder.windows if not done.issuperset(one)]
    if not pieces:
        if folder.has_other_classes():
            folder.remember()
        return

    def store(made: PredictedFiles) -> Skipped | None:
        if made.skipped is not None:
            log.warning("predict: skipped %s: %s: %s", made.image, made.skipped.reason, made.skipped.detail)
        for name, content in made.files:
            target.write_bytes(name, content)
        return made.skipped

    images = sum(len(window) for window in folder.windows)
    with (
        show_progress("predict", images, "images", len(done)) as advance,
        engine.stream_results(work, pieces, store, advance) as results,
    ):
        for skipped in results:
            if skipped is not None:
                folder.skipped[skipped.image] = skipped
            reach_safe_point()
    folder.remember()


def _describe(work: PredictWork, run: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that masks depend on, and the names of the classes where clusters were given names."""
    config, iteration, names = work.config, work.iteration, work.names
    settings = {"network": (run.read_manifest(f"iteration-{iteration}") or {})["fingerprint"], "iteration": iteration}
    settings |= {"predict": describe_prediction(config.predict), "precision": config.train.precision}
    settings |= {"max_pixels": config.embed.max_pixels}
    if work.inference != "torch":  # which rounds otherwise
        settings["inference"] = work.inference
    if not names.given:
        return settings, {}
    return {**settings, "class_of_cluster": list(names.class_of_cluster)}, {"classes": list(names.classes)}


@dataclass(frozen=True)
class Window:
    """Images that may share batches of the network, and those of them that are done already."""

    names: tuple[str, ...]
    done: frozenset[str]


@dataclass(frozen=True)
class PredictedFiles:
    """The result for one image.

    Attributes:
        image: Name of the image.
        files: Names and contents, in the order in which they are to be written; none for a skipped image.
        skipped: Why the image was skipped, or None.
        images: See `engines.work.OfImages.images`.
    """

    image: str
    files: tuple[tuple[str, bytes], ...] = ()
    skipped: Skipped | None = None
    images: int = 1


@dataclass(frozen=True)
class PredictWork:
    """Labelling images under `root` with the network of `iteration` of the run folder `run`."""

    run: Path
    iteration: int
    root: ImageRoot
    names: ClusterNames
    overlay: bool
    probabilities: bool
    config: Config
    inference: str

    def load(self, backend: Backend, workers: int) -> Loaded[Window, PredictedFiles]:
        """See `engines.work.Work.load`."""
        from fastcomus.segmentation.files import load_segmenter
        from fastcomus.segmentation.labelling_network import prepare_segmenter
        from fastcomus.segmentation.prediction import predict_and_write

        network = load_segmenter(RunFolder(self.run), self.iteration)
        segmenter = prepare_segmenter(network, self.config.train.precision, backend.device, self.inference)

        def label(
            pieces: Sequence[Window], then: Callable[[PredictedFiles], Stored], on_images: Callable[[int], None]
        ) -> Iterator[Stored]:
            names = [name for window in pieces for name in window.names]
            done = frozenset().union(*(window.done for window in pieces))

            def write(prediction: Prediction) -> Stored:
                return then(self._encode_files(prediction))

            for stored in predict_and_write(
                segmenter, self.root, names, done, write, self.config, backend, workers, keep_pixels=self.overlay
            ):
                on_images(1)
                yield stored

        return label

    def _encode_files(self, prediction: Prediction) -> PredictedFiles:
        """Make the files of an image; called by several threads."""
        from fastcomus.segmentation.predicted_files import encode_predicted_files

        image, error = prediction.image, prediction.error
        if error is not None:
            return PredictedFiles(image, skipped=Skipped(image, error.reason, error.detail))
        files = encode_predicted_files(prediction, self.names, prediction.pixels, self.probabilities)
        return PredictedFiles(image, files)
