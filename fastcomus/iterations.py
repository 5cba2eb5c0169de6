"""One round of self-training on a run folder: train, store the network, let it label every image (steps 9 and 10)."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from fastcomus.backends import Backend
from fastcomus.config import Config
from fastcomus.errors import InputError
from fastcomus.images import UnreadableImage
from fastcomus.labelling import label_images
from fastcomus.prediction import Prediction
from fastcomus.progress import progress_bar
from fastcomus.run_folder import RunFolder, fingerprint, mask_name
from fastcomus.segmenter import Segmenter, build_segmenter
from fastcomus.self_training import Checkpoint, EpochRow, train_epochs

log = logging.getLogger("fastcomus")


@dataclass(frozen=True)
class ImageSource:
    """Images that can be read: names under `root`. Their masks lie under `folder`/masks of an iteration."""

    root: Path
    names: tuple[str, ...]
    folder: str = ""
    stamp: str = ""


@dataclass(frozen=True)
class Sample:
    """An image and its class map: a path, and a name in the run folder."""

    image: Path
    mask: str


@dataclass(frozen=True)
class Surroundings:
    """Where and with what an iteration runs."""

    folder: RunFolder
    config: Config
    backend: Backend
    workers: int


def run_iteration(
    iteration: int, samples: Sequence[Sample], sources: Sequence[ImageSource], k: int, follows: str, at: Surroundings
) -> tuple[str, list[Sample]]:
    """Do iteration `iteration` (1, 2, ...) unless it is up to date; its fingerprint and the next iteration's samples.

    `follows`: fingerprint of the iteration before, whose class maps `samples` carry. `sources`: all images to label.
    Training goes on from the last epoch, labelling from the last mask, of an attempt that was killed.
    """
    name, config = f"iteration-{iteration}", at.config
    stage = fingerprint(
        train=_relevant_settings(config, iteration),
        predict=asdict(config.predict),
        seed=config.seed,
        k=k,
        follows=follows,
        extend=[source.stamp for source in sources],
    )
    if at.folder.is_current(name, stage):
        log.info("%s: up to date", name)
    else:
        if len(samples) < 2:
            raise InputError(
                f"{name} needs at least 2 images with an object to train on; got {len(samples)}. Add images"
                + (", or lower --filter." if iteration == 1 else ", or give the first network more --epochs.")
            )
        at.folder.begin(name, stage)
        segmenter = _trained(iteration, name, samples, k, at)
        empty = _label_images(segmenter, name, sources, at)
        facts = {"k": k, "backbone": config.train.backbone, "output_stride": config.train.output_stride}
        at.folder.remove(f"{name}/checkpoint.pt")
        at.folder.finish(name, stage, follows=follows, images=len(samples), empty=empty, **facts)
        log.info("%s: masks in %s", name, at.folder.path / name / "masks")
    is_empty = set((at.folder.manifest(name) or {})["empty"])
    masks = ((source, image, _mask(name, source, image)) for source in sources for image in source.names)
    labelled = [
        Sample(source.root / image, mask)
        for source, image, mask in masks
        if mask not in is_empty and at.folder.file(mask).exists()
    ]
    return stage, labelled


def load_segmenter(folder: RunFolder, iteration: int) -> Segmenter:
    """The network of a finished iteration, in eval mode on the CPU. No pretrained weights are needed."""
    manifest = folder.manifest(f"iteration-{iteration}") or {}
    return _stored_segmenter(
        folder, f"iteration-{iteration}", manifest["backbone"], manifest["k"], manifest["output_stride"]
    )


def _trained(iteration: int, name: str, samples: Sequence[Sample], k: int, at: Surroundings) -> Segmenter:
    config = at.config.train
    stored = at.folder.file(f"{name}/segmenter.safetensors")
    if stored.exists():
        return _stored_segmenter(at.folder, name, config.backbone, k, config.output_stride)
    epochs = config.epochs if iteration == 1 else config.next_epochs
    resume = _read_checkpoint(at.folder, name)
    done = len(resume.history) if resume else 0
    log.info("%s: training on %d images, %d of %d epochs are done", name, len(samples), done, epochs)

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = samples[index]
        try:
            pixels = at.backend.decode(str(sample.image), at.config.embed.max_pixels)
        except UnreadableImage as error:
            raise InputError(
                f"{sample.image} can no longer be read ({error}); put it back, or run fastcomus embed and cluster."
            ) from error
        class_map = at.folder.read_class_map(sample.mask)
        if class_map.shape != pixels.shape[:2]:
            raise InputError(
                f"{sample.image} is {pixels.shape[1]} x {pixels.shape[0]} and its mask {class_map.shape[1]} x "
                f"{class_map.shape[0]}; run fastcomus embed again."
            )
        return pixels, class_map

    seed = at.config.seed + iteration
    segmenter: Segmenter | None = None
    with progress_bar(name, epochs * len(samples), "images", done * len(samples)) as advance:
        for trained, checkpoint in train_epochs(
            read, len(samples), k, config, epochs, seed, at.backend, at.workers, resume, advance
        ):
            segmenter = trained
            _write_checkpoint(at.folder, name, checkpoint)
            row = checkpoint.history[-1]
            log.info("%s: epoch %d of %d, loss %.3f, agreement %.3f", name, row.epoch, epochs, row.loss, row.agreement)
    if segmenter is None:  # killed between the last epoch and the storing of its network
        assert resume is not None
        segmenter = build_segmenter(config.backbone, "", k, config.output_stride, pretrained=False)
        segmenter.load_state_dict(resume.state["segmenter"])
    with at.folder.replacing(f"{name}/segmenter.safetensors") as path:
        save_file({key: tensor.contiguous() for key, tensor in segmenter.state_dict().items()}, path)
    return segmenter


def _label_images(segmenter: Segmenter, name: str, sources: Sequence[ImageSource], at: Surroundings) -> list[str]:
    """Write the class map of every image that has none yet; the names of masks without any object."""
    empty = []
    for source in sources:
        masks = {image: _mask(name, source, image) for image in source.names}
        done = {image for image, mask in masks.items() if at.folder.file(mask).exists()}
        empty += [masks[image] for image in done if not at.folder.read_class_map(masks[image]).any()]
        log.info("%s: labelling %d images, %d are done", name, len(masks) - len(done), len(done))

        def write(prediction: Prediction, masks: dict[str, str] = masks) -> str | None:
            """The mask's name when it is empty."""
            if prediction.error is not None:
                log.warning("%s: skipped %s: %s", name, prediction.image, prediction.error)
                return None
            mask, labels = masks[prediction.image], prediction.labels()
            at.folder.write_class_map(mask, labels)
            return None if labels.any() else mask

        task = f"{name} masks"
        written = label_images(
            segmenter, source.root, source.names, done, write, at.config, at.backend, at.workers, task
        )
        empty += [mask for mask in written if mask is not None]
    return sorted(empty)


def _mask(name: str, source: ImageSource, image: str) -> str:
    return mask_name(f"{name}/{source.folder}" if source.folder else name, image)


def _stored_segmenter(folder: RunFolder, name: str, backbone: str, k: int, output_stride: int) -> Segmenter:
    file = folder.file(f"{name}/segmenter.safetensors")
    segmenter = build_segmenter(backbone, "", k, output_stride, pretrained=False)
    try:
        segmenter.load_state_dict(load_file(file))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{file} cannot be read ({reason}); delete the folder {name} and run fastcomus train."
        ) from error
    return segmenter.eval()


def _write_checkpoint(folder: RunFolder, name: str, checkpoint: Checkpoint) -> None:
    """training.csv first: it is written anew from the checkpoint's history after every epoch."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(EpochRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in checkpoint.history)
    folder.write_text(f"{name}/training.csv", stream.getvalue())
    with folder.replacing(f"{name}/checkpoint.pt") as path:
        torch.save({"history": [asdict(row) for row in checkpoint.history], "state": checkpoint.state}, path)


def _read_checkpoint(folder: RunFolder, name: str) -> Checkpoint | None:
    file = folder.file(f"{name}/checkpoint.pt")
    if not file.exists():
        return None
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        return Checkpoint(tuple(EpochRow(**row) for row in saved["history"]), saved["state"])
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{file} cannot be read ({reason}); delete it to train from the start.") from error


def _relevant_settings(config: Config, iteration: int) -> dict[str, Any]:
    """Settings that this iteration depends on; another number of iterations leaves the first ones as they are."""
    settings = asdict(config.train)
    for setting in ("iterations", "next_epochs" if iteration == 1 else "epochs"):
        del settings[setting]
    if iteration == 1:
        del settings["extend"]
    return settings
