"""The folder that `predict` writes: masks, on request overlays and probabilities; what is still right stays."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastcomus.cluster_names import ClusterNames
from fastcomus.config import Config
from fastcomus.engines import Engine
from fastcomus.image_roots import absolute_root
from fastcomus.images import LOST, ImageList, Skipped
from fastcomus.integrity import sealed
from fastcomus.interruption import safe_point
from fastcomus.prediction import WINDOW
from fastcomus.prediction_work import PredictedFiles, PredictWork, Window, prediction_files
from fastcomus.progress import progress_bar
from fastcomus.run_folder import RunFolder, fingerprint, read_sealed

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

    `target` gets a mask NAME.png per image, overlays/NAME.jpg when `overlay` (`prediction_work.overlay_picture`),
    probabilities/NAME.npy when `probabilities` (`Prediction.probabilities`), and predictions.json: settings, what was
    skipped, and a fingerprint for every window of images that share batches. Windows whose images, network or settings
    changed are done again; of the others, only what is missing.

    Where clusters have `names`, the labels are their classes, which predictions.json lists, background first; a
    class's probability is the sum of its clusters'.
    """
    images = wanted.found.names
    settings = {"network": (run.manifest(f"iteration-{iteration}") or {})["fingerprint"], "iteration": iteration}
    settings |= {"predict": asdict(config.predict), "precision": config.train.precision}
    settings |= {"max_pixels": config.embed.max_pixels}
    if names.given:
        settings["class_of_cluster"] = list(names.class_of_cluster)
    starts = range(0, len(images), WINDOW)
    prints = {start: fingerprint(settings=settings, stamps=wanted.stamps[start : start + WINDOW]) for start in starts}
    target.unfinished("predictions.json").unlink(missing_ok=True)  # of a killed writer; that of a mask is made again
    stored = _stored(target)
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
        target.write_json("predictions.json", sealed(state))

    if changed:  # first nothing vouches for the old files, then they go, then the new ones may come
        remember([one for start, one in prints.items() if start not in changed])
        for name in fresh:
            for file in prediction_files(name, True, True):
                target.file(file).unlink(missing_ok=True)
        remember(list(prints.values()))
    done = {
        name
        for name in images
        if name in skipped or all(target.file(file).exists() for file in prediction_files(name, overlay, probabilities))
    }

    def store(made: PredictedFiles) -> Skipped | None:
        if made.skipped is not None:
            log.warning("predict: skipped %s: %s: %s", made.image, made.skipped.reason, made.skipped.detail)
        for name, content in made.files:
            target.write_bytes(name, content)
        return made.skipped

    if len(done) < len(images):
        root = absolute_root(wanted.found.root)
        work = PredictWork(run.path.absolute(), iteration, root, names, overlay, probabilities, config)
        windows = [images[start : start + WINDOW] for start in starts]
        pieces = [Window(one, frozenset(done.intersection(one))) for one in windows if not done.issuperset(one)]
        with (
            progress_bar("predict", len(images), "images", len(done)) as advance,
            engine.results(work, pieces, store, advance) as results,
        ):
            for one in results:
                if one is not None:
                    skipped[one.image] = one
                safe_point()
        remember(list(prints.values()))
    elif stored["state"].get("classes") != classes.get("classes"):  # other names of the same classes
        remember(list(prints.values()))
    return len(images) - len(skipped), [*skipped.values(), *wanted.found.skipped]


def _stored(target: RunFolder) -> dict[str, Any]:
    """What an earlier `predict` left: {windows, skipped, state}; nothing where it is not to be understood."""
    file = target.path / "predictions.json"
    state = read_sealed(file, "delete it, and all masks are made again") if file.exists() else {}
    return {"windows": set(state.get("windows", [])), "skipped": state.get("skipped", []), "state": state}
