"""One round of self-training on a run folder: train, store the network, let it label every image (steps 9 and 10)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastcomus.config import Config
from fastcomus.errors import InputError
from fastcomus.images.found import LOST
from fastcomus.interruption import is_asked, reach_safe_point
from fastcomus.networks.augmentation import ReadSample
from fastcomus.progress import count, show_progress
from fastcomus.run.contents import ImageSource
from fastcomus.run.workplace import Workplace
from fastcomus.segmentation.files import (
    NETWORK_FILES,
    has_segmenter,
    read_segmenter,
    read_training_state,
    remove_training_state,
    show_in_tensorboard,
    write_segmenter,
    write_training_state,
)
from fastcomus.segmentation.labelling import label_images
from fastcomus.segmentation.prediction import Prediction
from fastcomus.segmentation.samples import Sample, check_samples, make_sample_reader
from fastcomus.segmentation.segmenter import Segmenter
from fastcomus.segmentation.training import SelfTraining
from fastcomus.store.masks import get_mask_file_name, get_mask_path, read_class_map, write_class_map, write_grey
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")
CHECKPOINT_S = 60.0  # between checkpoints within an epoch


def run_iteration(
    iteration: int, samples: Sequence[Sample], sources: Sequence[ImageSource], k: int, follows: str, at: Workplace
) -> tuple[str, list[Sample]]:
    """Do iteration `iteration` (1, 2, ...) unless it is up to date; its fingerprint and the next iteration's samples.

    `follows`: fingerprint of the iteration before, whose class maps `samples` carry. `sources`: all images to label.
    Training goes on from the last epoch, labelling from the last mask, of an attempt that was killed. A network that is
    there stays where only settings of labelling have changed.
    """
    name, config = f"iteration-{iteration}", at.config
    stage = compute_fingerprint(
        train=_select_settings(config, iteration),
        predict=asdict(config.predict),
        seed=config.seed,
        k=k,
        follows=follows,
        extend=[source.stamp for source in sources],
    )
    trained_from = compute_fingerprint(
        train=_select_training_settings(config, iteration), seed=config.seed, k=k, follows=follows
    )
    first = at.processes.is_first
    if at.processes.broadcast(first and at.folder.is_current(name, stage)):
        log.info("%s: up to date", name)
    else:
        if len(samples) < 2:
            raise InputError(
                f"{name} needs at least 2 images with an object to train on; got {len(samples)}. Add images"
                + (", or lower --filter." if iteration == 1 else ", or give the first network more --epochs.")
            )
        if first:
            at.folder.begin(name, stage, kept=NETWORK_FILES)
        at.processes.wait()
        segmenter = _obtain_segmenter(iteration, samples, k, trained_from, at)
        empty = _label_images(segmenter, name, sources, at)
        if first:
            facts = {"k": k, "backbone": config.train.backbone, "output_stride": config.train.output_stride}
            remove_training_state(at.folder, iteration)
            at.folder.finish(name, stage, follows=follows, images=len(samples), empty=empty, **facts)
        at.processes.wait()
        log.info("%s: masks in %s", name, at.folder.path / name / "masks")
    is_empty = set((at.folder.read_manifest(name) or {})["empty"])
    masks = ((source, image, _make_mask_name(name, source, image)) for source in sources for image in source.names)
    labelled = [
        Sample(
            source.root / image, mask, _make_confidence_name(name, source, image) if config.train.min_confidence else ""
        )
        for source, image, mask in masks
        if mask not in is_empty and at.folder.resolve_file(mask).exists()
    ]
    return stage, labelled


def measure_agreement(iteration: int, sources: Sequence[ImageSource], at: Workplace) -> float:
    """The share, in [0, 1], of the pixels that are object in the masks of `iteration` or of the one before which have
    the same label in both. Images that only one of them has labelled do not count; 1 where there is no object.
    """
    same = of_either = 0
    for source in sources:
        for image in source.names[at.processes.rank :: at.processes.size]:
            names = [_make_mask_name(f"iteration-{number}", source, image) for number in (iteration - 1, iteration)]
            if all(at.folder.resolve_file(name).exists() for name in names):
                before, now = (read_class_map(at.folder, name) for name in names)
                same += int(((before == now) & (now > 0)).sum())
                of_either += int(((before > 0) | (now > 0)).sum())
    totals = [sum(counts) for counts in zip(*at.processes.gather((same, of_either)), strict=True)]
    return totals[0] / totals[1] if totals[1] else 1.0


def _obtain_segmenter(iteration: int, samples: Sequence[Sample], k: int, trained_from: str, at: Workplace) -> Segmenter:
    """The network of the iteration, from its file or trained, going on from the last checkpoint.

    `trained_from`: a fingerprint of all that training depends on.
    """
    config, folder, first = at.config.train, at.folder, at.processes.is_first
    name = f"iteration-{iteration}"
    if at.processes.broadcast(has_segmenter(folder, iteration, trained_from)):
        return read_segmenter(folder, iteration, config.backbone, k, config.output_stride)
    epochs = config.epochs if iteration == 1 else config.next_epochs
    resume = read_training_state(folder, iteration)
    training = SelfTraining(k, config, epochs, at.config.seed + iteration, at.backend, at.processes, resume)
    log.info(
        "%s: training in %s on %d images, %d of %d epochs and %d steps are done",
        name,
        training.precision,
        len(samples),
        len(training.history),
        epochs,
        training.steps,
    )
    max_pixels, cache_bytes = at.config.embed.max_pixels, config.cache_gb * 1e9
    read = make_sample_reader(samples, k, config.min_confidence, max_pixels, cache_bytes, folder, at.backend)
    _check_samples(read, len(samples), name, at)
    done = len(training.history) * len(samples) + training.steps * config.batch_size
    stored = time.monotonic()
    with show_progress(name, epochs * len(samples), "images", done) as advance:
        for images in training.train(read, len(samples), at.workers):
            advance(images)
            count(images=images)
            ended = training.steps == 0
            if first and (ended or time.monotonic() - stored > CHECKPOINT_S or is_asked()):
                write_training_state(folder, iteration, training.make_checkpoint())
                stored = time.monotonic()
                reach_safe_point()
            if ended:
                row = training.history[-1]
                told = (row.epoch, epochs, row.loss, row.agreement, row.images_per_s)
                log.info("%s: epoch %d of %d, loss %.3f, agreement %.3f, %.1f images/s", name, *told)
                if first:
                    show_in_tensorboard(folder, iteration, row)
    if first:
        write_segmenter(folder, iteration, training.get_trained(), trained_from)
    at.processes.wait()
    return training.get_trained()


def _check_samples(read: ReadSample, count: int, name: str, at: Workplace) -> None:
    """Every process looks at its share; what one cannot use ends all of them."""
    told = ""
    with show_progress(f"{name}: reading", count, "images") as advance:
        try:
            check_samples(read, range(count)[at.processes.rank :: at.processes.size], at.workers, advance)
        except InputError as error:
            told = str(error)
    for message in at.processes.gather(told):
        if message:
            raise InputError(message)


def _label_images(segmenter: Segmenter, name: str, sources: Sequence[ImageSource], at: Workplace) -> list[str]:
    """Write the class map of every image that has none yet; the names of masks without any object.

    Every process does its share of the images.
    """
    empty = []
    for source in sources:
        names = source.names[at.processes.rank :: at.processes.size]
        masks = {image: _make_mask_name(name, source, image) for image in names}
        done = {image for image, mask in masks.items() if at.folder.resolve_file(mask).exists()}
        empty += [masks[image] for image in done if not read_class_map(at.folder, masks[image]).any()]
        log.info("%s: labelling %d images, %d are done", name, len(masks) - len(done), len(done))

        def write(prediction: Prediction, source: ImageSource = source, masks: dict[str, str] = masks) -> str | None:
            """The mask's name when it is empty."""
            if prediction.error is not None and prediction.error.reason == LOST:
                raise InputError(
                    f"{source.root / prediction.image} can no longer be read ({prediction.error}); put it back, or "
                    "run fastcomus embed and cluster."
                )
            if prediction.error is not None:
                log.warning("%s: skipped %s: %s", name, prediction.image, prediction.error)
                return None
            mask, train = masks[prediction.image], at.config.train
            first = get_mask_path("iteration-0", prediction.image)
            has_first = train.mask_weight > 0 and not source.folder and at.folder.resolve_file(first).exists()
            if has_first or train.min_confidence:
                is_object = read_class_map(at.folder, first) > 0 if has_first else None
                labels, confidence = prediction.compute_labels_and_confidence(is_object, train.mask_weight)
            else:
                labels = prediction.compute_labels()
            if train.min_confidence:
                write_grey(at.folder, _make_confidence_name(name, source, prediction.image), confidence)
            write_class_map(at.folder, mask, labels)
            return None if labels.any() else mask

        task = f"{name} masks"
        for mask in label_images(segmenter, source.root, names, done, write, at.config, at.backend, at.workers, task):
            count(masks=1)
            empty += [mask] if mask is not None else []
    return sorted(mask for of_one in at.processes.gather(empty) for mask in of_one)


def _make_mask_name(name: str, source: ImageSource, image: str) -> str:
    return get_mask_path(_make_folder_name(name, source), image)


def _make_confidence_name(name: str, source: ImageSource, image: str) -> str:
    """Grey: 255 where the network was sure of its label."""
    return f"{_make_folder_name(name, source)}/confidence/{get_mask_file_name(image)}"


def _make_folder_name(name: str, source: ImageSource) -> str:
    return f"{name}/{source.folder}" if source.folder else name


def _select_settings(config: Config, iteration: int) -> dict[str, Any]:
    """Settings that this iteration depends on; another number of iterations leaves the first ones as they are."""
    settings = asdict(config.train)
    for setting in ("iterations", "stop_agreement", "cache_gb", "next_epochs" if iteration == 1 else "epochs"):
        del settings[setting]
    if iteration == 1:
        del settings["extend"]
        settings["min_confidence"] = settings["min_confidence"] > 0  # later ones ask for its confidence, however much
    return settings


def _select_training_settings(config: Config, iteration: int) -> dict[str, Any]:
    """Of these, those that change the network; how the images are labelled after changes the next one."""
    settings = _select_settings(config, iteration)
    del settings["mask_weight"]
    if iteration == 1:
        del settings["min_confidence"]
    return settings
