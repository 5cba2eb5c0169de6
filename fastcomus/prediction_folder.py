"""The folder that `predict` writes: masks, on request overlays and probabilities; what is still right stays."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from fastcomus.backends import Backend
from fastcomus.cluster_names import ClusterNames
from fastcomus.config import Config
from fastcomus.images import LOST, ImageList, Skipped, UnreadableImage
from fastcomus.integrity import sealed
from fastcomus.labelling import label_images
from fastcomus.prediction import WINDOW, Prediction
from fastcomus.run_folder import RunFolder, fingerprint, mask_file, palette, read_sealed
from fastcomus.segmenter_files import load_segmenter

log = logging.getLogger("fastcomus")

_OVERLAY_QUALITY = 90  # of JPEG


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
    backend: Backend,
    workers: int,
) -> tuple[int, list[Skipped]]:
    """Fill `target` by the network of `iteration` of `run`; the number of images with a mask, and what was skipped.

    `target` gets a mask NAME.png per image, overlays/NAME.jpg when `overlay` (`overlay_picture`),
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
            for file in _files(name, True, True):
                target.file(file).unlink(missing_ok=True)
        remember(list(prints.values()))
    done = {
        name
        for name in images
        if name in skipped or all(target.file(file).exists() for file in _files(name, overlay, probabilities))
    }

    def write(prediction: Prediction) -> Skipped | None:
        name = prediction.image
        try:
            if prediction.error is not None:
                raise prediction.error
            labels = names.class_map(prediction.labels())
            if overlay:
                pixels = backend.decode(wanted.found.root / name, config.embed.max_pixels)
                with target.replacing(_files(name, True, False)[1]) as path:
                    path.write_bytes(overlay_picture(pixels, labels))
        except UnreadableImage as error:
            log.warning("predict: skipped %s: %s", name, error)
            return Skipped(name, error.reason, error.detail)
        if probabilities:
            target.write_array(_files(name, False, True)[1], _by_class(prediction.probabilities(), names))
        target.write_class_map(mask_file(name), labels)
        return None

    if len(done) < len(images):
        segmenter = load_segmenter(run, iteration)
        results = label_images(segmenter, wanted.found.root, images, done, write, config, backend, workers, "predict")
        skipped |= {one.image: one for one in results if one is not None}
        remember(list(prints.values()))
    elif stored["state"].get("classes") != classes.get("classes"):  # other names of the same classes
        remember(list(prints.values()))
    return len(images) - len(skipped), [*skipped.values(), *wanted.found.skipped]


def overlay_picture(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A JPEG of `pixels` (H, W, 3) uint8, objects of `labels` (H, W) tinted half in the masks' colours.

    Labels above 255 take the colours of 1 to 255 again.
    """
    colours = palette()[np.where(labels == 0, 0, (labels.astype(np.int64) - 1) % 255 + 1)]
    tinted = (pixels.astype(np.uint16) + colours + 1) // 2
    stream = io.BytesIO()
    picture = np.where(labels[:, :, None] > 0, tinted, pixels).astype(np.uint8)
    Image.fromarray(picture).save(stream, format="JPEG", quality=_OVERLAY_QUALITY)
    return stream.getvalue()


def _files(name: str, overlay: bool, probabilities: bool) -> list[str]:
    """The mask of an image, then what else is asked for."""
    stem = mask_file(name).removesuffix(".png")
    extra = [f"overlays/{stem}.jpg"] * overlay + [f"probabilities/{stem}.npy"] * probabilities
    return [mask_file(name), *extra]


def _by_class(probabilities: np.ndarray, names: ClusterNames) -> np.ndarray:
    """Probabilities (k + 1, h, w) of clusters as those of classes (C + 1, h, w), float16."""
    if not names.given:
        return probabilities
    sums = np.zeros((len(names.classes), *probabilities.shape[1:]), np.float32)
    np.add.at(sums, names.class_of_label, probabilities)
    return sums.astype(np.float16)


def _stored(target: RunFolder) -> dict[str, Any]:
    """What an earlier `predict` left: {windows, skipped, state}; nothing where it is not to be understood."""
    file = target.path / "predictions.json"
    state = read_sealed(file, "delete it, and all masks are made again") if file.exists() else {}
    return {"windows": set(state.get("windows", [])), "skipped": state.get("skipped", []), "state": state}
