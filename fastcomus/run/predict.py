"""The folder that `predict` writes: masks, on request overlays and probabilities; what is still right stays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastcomus.backends.interface import Backend
from fastcomus.clusters.names import ClusterNames
from fastcomus.config import Config
from fastcomus.images.found import LOST, ImageList, Skipped
from fastcomus.images.roots import ImageRoot, make_root_absolute
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.progress import show_progress
from fastcomus.run.engines.work import Engine, Loaded, Stored
from fastcomus.segmentation.files import load_segmenter
from fastcomus.segmentation.labelling import predict_and_write
from fastcomus.segmentation.predicted_files import encode_predicted_files, list_prediction_files
from fastcomus.segmentation.prediction import WINDOW, Prediction
from fastcomus.store.integrity import seal_json
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint, read_sealed

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class PredictedImages:
    """The images to predict, and `stamps` that change when they do (one for each name)."""

    found: ImageList
    stamps: Sequence[Any]


def write_predictions(
    wanted: PredictedImages,
    target: RunFolder,
    overlay: bool,
    probabilities: bool,
    run: RunFolder,
    iteration: int,
    names: ClusterNames,
    config: Config,
    engine: Engine,
) -> tuple[int, list[Skipped]]:
    """Fill `target` by the network of `iteration` of `run`, as `engine` says; the number of images with a mask, and
    what was skipped.

    `target` gets a mask NAME.png per image, overlays/NAME.jpg when `overlay` (`prediction_work.render_overlay`),
    probabilities/NAME.npy when `probabilities` (`Prediction.probabilities`), and predictions.json: settings, what was
    skipped, and a fingerprint for every window of images that share batches. Windows whose images, network or settings
    changed are done again; of the others, only what is missing.

    Where clusters have `names`, the labels are their classes, which predictions.json lists, background first; a
    class's probability is the sum of its clusters'.
    """
    images = wanted.found.names
    settings = {"network": (run.read_manifest(f"iteration-{iteration}") or {})["fingerprint"], "iteration": iteration}
    settings |= {"predict": asdict(config.predict), "precision": config.train.precision}
    settings |= {"max_pixels": config.embed.max_pixels}
    if names.given:
        settings["class_of_cluster"] = list(names.class_of_cluster)
    starts = range(0, len(images), WINDOW)
    prints = {
        start: compute_fingerprint(settings=settings, stamps=wanted.stamps[start : start + WINDOW]) for start in starts
    }
    target.locate_unfinished("predictions.json").unlink(
        missing_ok=True
    )  # of a killed writer; that of a mask is made again
    stored = _read_predictions(target)
    changed = [start for start in starts if prints[start] not in stored["windows"]]
    fresh = [name for start in changed for name in images[start : start + WINDOW]]
    known = set(images) - set(fresh)
    rows = [row for row in stored["skipped"] if row["image"] in known and row["reason"] != LOST]
    skipped = {row["image"]: Skipped(**row) for row in rows}
    classes = {"classes": list(names.classes)} if names.given else {}

    def remember(windows: Sequence[str]) -> None:
        rows = sorted([*skipped.values(), *wanted.found.skipped], key=lambda one: one.image)
        state = {**settings, "windows": list(windows), "skipped": [asdict(one) for one in rows], **classes}
        if target.path.exists() and state == stored["state"]:
            return
        target.write_json("predictions.json", seal_json(state))

    if changed:  # first nothing vouches for the old files, then they go, then the new ones may come
        remember([one for start, one in prints.items() if start not in changed])
        for name in fresh:
            for file in list_prediction_files(name, True, True):
                target.resolve_file(file).unlink(missing_ok=True)
        remember(list(prints.values()))
    done = {
        name
        for name in images
        if name in skipped
        or all(target.resolve_file(file).exists() for file in list_prediction_files(name, overlay, probabilities))
    }

    def store(made: PredictedFiles) -> Skipped | None:
        if made.skipped is not None:
            log.warning("predict: skipped %s: %s: %s", made.image, made.skipped.reason, made.skipped.detail)
        for name, content in made.files:
            target.write_bytes(name, content)
        return made.skipped

    if len(done) < len(images):
        root = make_root_absolute(wanted.found.root)
        work = PredictWork(run.path.absolute(), iteration, root, names, overlay, probabilities, config)
        windows = [images[start : start + WINDOW] for start in starts]
        pieces = [Window(one, frozenset(done.intersection(one))) for one in windows if not done.issuperset(one)]
        with (
            show_progress("predict", len(images), "images", len(done)) as advance,
            engine.stream_results(work, pieces, store, advance) as results,
        ):
            for one in results:
                if one is not None:
                    skipped[one.image] = one
                reach_safe_point()
        remember(list(prints.values()))
    elif stored["state"].get("classes") != classes.get("classes"):  # other names of the same classes
        remember(list(prints.values()))
    return len(images) - len(skipped), [*skipped.values(), *wanted.found.skipped]


def _read_predictions(target: RunFolder) -> dict[str, Any]:
    """What an earlier `predict` left: {windows, skipped, state}; nothing where it is not to be understood."""
    file = target.path / "predictions.json"
    state = read_sealed(file, "delete it, and all masks are made again") if file.exists() else {}
    return {"windows": set(state.get("windows", [])), "skipped": state.get("skipped", []), "state": state}


@dataclass(frozen=True)
class Window:
    """Images that may share batches, and those among them that are `done` already."""

    names: tuple[str, ...]
    done: frozenset[str]


@dataclass(frozen=True)
class PredictedFiles:
    """The files of one image, by name, in the order in which they are to be written; or why there are none."""

    image: str
    files: tuple[tuple[str, bytes], ...] = ()
    skipped: Skipped | None = None
    images: int = 1


@dataclass(frozen=True)
class PredictWork:
    """Labelling images under `root` by the network of `iteration` of the run folder `run`."""

    run: Path
    iteration: int
    root: ImageRoot
    names: ClusterNames
    overlay: bool
    probabilities: bool
    config: Config

    def load(self, backend: Backend, workers: int) -> Loaded[Window, PredictedFiles]:
        segmenter = with_folded_batch_norms(load_segmenter(RunFolder(self.run), self.iteration), torch.uint8)

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
        image, error = prediction.image, prediction.error
        if error is not None:
            return PredictedFiles(image, skipped=Skipped(image, error.reason, error.detail))
        return PredictedFiles(
            image, encode_predicted_files(prediction, self.names, prediction.pixels, self.probabilities)
        )
