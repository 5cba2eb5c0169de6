"""One round of self-training: train a network, store it, and label every image with it (steps 9 and 10)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fastcomus.config import TRAINING_STEPS, Config
from fastcomus.errors import InputError
from fastcomus.images.found import LOST
from fastcomus.images.stamps import stamp_file
from fastcomus.interruption import is_asked, reach_safe_point
from fastcomus.networks.augmentation import ReadSample
from fastcomus.networks.schedules import choose_epochs
from fastcomus.progress import count, show_progress
from fastcomus.run.contents import ImageSource, check_images_are_there
from fastcomus.run.iteration_masks import list_absent_masks, make_confidence_name, make_mask_name
from fastcomus.run.labelling_settings import describe_prediction
from fastcomus.run.workplace import Workplace
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.files import (
    NETWORK_FILES,
    has_segmenter,
    put_segmenter_aside,
    read_segmenter,
    read_training_state,
    remove_training_state,
    restore_segmenter,
    show_in_tensorboard,
    write_segmenter,
    write_training_state,
)
from fastcomus.segmentation.labelling_network import WORTH_IT_FROM, prepare_segmenter
from fastcomus.segmentation.prediction import label_images
from fastcomus.segmentation.regions import OwnObjects
from fastcomus.segmentation.samples import Sample, check_samples, make_sample_reader
from fastcomus.segmentation.segmenter import Segmenter
from fastcomus.segmentation.training import SelfTraining
from fastcomus.store.masks import get_mask_path, read_class_map, write_class_map, write_grey
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")
CHECKPOINT_S = 60.0  # between checkpoints within an epoch


def run_iteration(
    iteration: int, samples: Sequence[Sample], sources: Sequence[ImageSource], k: int, follows: str, at: Workplace
) -> tuple[str, list[Sample]]:
    """Do an iteration unless it is up to date.

    After a kill, training resumes from the last checkpoint and labelling after the last mask. An existing network is
    kept where only settings of labelling have changed.

    Args:
        iteration: Its number, from 1.
        samples: The images to train on, with the class maps of the iteration before.
        sources: All images to label.
        k: Number of clusters.
        follows: Fingerprint of the iteration before.
        at: The run folder, the settings and the device.

    Returns:
        The fingerprint of this iteration, and the samples of the next one.

    Raises:
        InputError: For fewer than two samples, or where an image can no longer be read.
    """
    name, config = f"iteration-{iteration}", at.config
    settings = _select_settings(config, iteration)
    training = _select_training_settings(settings, iteration)
    stage = compute_fingerprint(
        train=settings,
        predict=describe_prediction(config.predict),
        seed=config.seed,
        k=k,
        follows=follows,
        extend=[source.stamp for source in sources],
    )
    trained_from = compute_fingerprint(train=training, seed=config.seed, k=k, follows=follows)
    first = at.processes.is_first
    if at.processes.broadcast(first and _is_whole(iteration, stage, trained_from, sources, at)):
        log.info("%s: up to date", name)
    else:
        if len(samples) < 2:
            remedy = "lower --filter" if iteration == 1 else "give the first network more --epochs"
            raise InputError(
                f"{name} needs at least 2 images with an object to train on; got {len(samples)}. Add images, or "
                f"{remedy}."
            )
        check_images_are_there(sources)
        if first:
            at.folder.begin(name, stage, kept=NETWORK_FILES)
        at.processes.wait()
        segmenter = _obtain_segmenter(iteration, samples, k, trained_from, at)
        empty = _label_images(segmenter, name, sources, at)
        if first:
            facts = {"k": k, "backbone": config.train.backbone, "output_stride": config.train.output_stride}
            remove_training_state(at.folder, iteration)
            facts["absent"] = list_absent_masks(name, sources, at)
            at.folder.finish(name, stage, follows=follows, images=len(samples), empty=empty, **facts)
        at.processes.wait()
        log.info("%s: masks in %s", name, at.folder.path / name / "masks")
    return stage, _list_labelled(name, sources, at)


def _is_whole(iteration: int, stage: str, trained_from: str, sources: Sequence[ImageSource], at: Workplace) -> bool:
    """Whether the iteration is up to date, and nothing of it was lost since."""
    name = f"iteration-{iteration}"
    if not at.folder.is_current(name, stage):
        return False
    manifest = at.folder.read_manifest(name) or {}
    lost = set(list_absent_masks(name, sources, at)) - set(manifest.get("absent", []))
    has_network = has_segmenter(at.folder, iteration, trained_from)
    if lost or not has_network:
        what = f"masks are gone ({len(lost)} in all, such as {min(lost)})" if has_network else "its network is damaged"
        log.warning("%s: %s; made anew", name, what)
    return has_network and not lost


def _obtain_segmenter(iteration: int, samples: Sequence[Sample], k: int, trained_from: str, at: Workplace) -> Segmenter:
    """Read the network of the iteration, or train it; `trained_from` is a fingerprint of all it depends on."""
    config, folder, first = at.config.train, at.folder, at.processes.is_first
    name = f"iteration-{iteration}"
    is_new = not has_segmenter(folder, iteration, trained_from)
    if at.processes.broadcast(first and restore_segmenter(folder, iteration, trained_from)):
        if is_new:
            log.info("%s: its network was trained before with these settings; only masks are made anew", name)
        return read_segmenter(folder, iteration, config.backbone, k, config.output_stride)
    if first:
        put_segmenter_aside(folder, iteration)
    wanted = config.epochs if iteration == 1 else config.next_epochs
    epochs = choose_epochs(wanted, len(samples), max(config.batch_size, at.processes.size), TRAINING_STEPS)
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
    """Check the samples, each process its share of them; an error of one is raised in all."""
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
    """Write the missing class maps, each process its share; return the names of all masks without an object."""
    empty, network = [], None
    inference = at.choose_inference(sum(len(source.names) for source in sources), WORTH_IT_FROM)
    for source in sources:
        names = source.names[at.processes.rank :: at.processes.size]
        masks = {image: make_mask_name(name, source, image) for image in names}
        done = {image for image, mask in masks.items() if at.folder.resolve_file(mask).exists()}
        empty += [masks[image] for image in done if not read_class_map(at.folder, masks[image]).any()]
        log.info("%s: labelling %d images, %d are done", name, len(masks) - len(done), len(done))
        if len(done) == len(masks):
            continue
        network = network or prepare_segmenter(segmenter, at.config.train.precision, at.backend.device, inference)
        write, task = partial(_write_labels, name=name, source=source, at=at), f"{name} masks"
        for mask in label_images(network, source.root, names, done, write, at.config, at.backend, at.workers, task):
            count(masks=1)
            empty += [mask] if mask is not None else []
    return sorted(mask for of_one in at.processes.gather(empty) for mask in of_one)


def _write_labels(prediction: Prediction, name: str, source: ImageSource, at: Workplace) -> str | None:
    """Write the class map of an image, and where the next iteration needs it the confidence; name it if it is empty."""
    image, error, train = prediction.image, prediction.error, at.config.train
    if error is not None and error.reason == LOST:
        raise InputError(
            f"{source.root / image} can no longer be read ({error}); put it back, or run fastcomus embed and cluster."
        )
    if error is not None:
        log.warning("%s: skipped %s: %s", name, image, error)
        return None
    mask, first = make_mask_name(name, source, image), get_mask_path("iteration-0", image)
    own, weights = None, (train.mask_weight, train.cluster_weight)
    if any(weights) and not source.folder and at.folder.resolve_file(first).exists():
        own = OwnObjects(read_class_map(at.folder, first), *weights)
    if train.min_confidence:
        labels, confidence = prediction.compute_labels_and_confidence(own)
        write_grey(at.folder, make_confidence_name(name, source, image), confidence)
    else:
        labels = prediction.compute_labels(own)
    write_class_map(at.folder, mask, labels)
    return None if labels.any() else mask


def _list_labelled(name: str, sources: Sequence[ImageSource], at: Workplace) -> list[Sample]:
    """Return the images in which iteration `name` found an object, with their class maps."""
    empty = set((at.folder.read_manifest(name) or {})["empty"])
    labelled = []
    for source in sources:
        for image in source.names:
            mask = make_mask_name(name, source, image)
            if mask not in empty and at.folder.resolve_file(mask).exists():
                confidence = make_confidence_name(name, source, image) if at.config.train.min_confidence else ""
                labelled.append(Sample(source.root / image, mask, confidence))
    return labelled


def _select_settings(config: Config, iteration: int) -> dict[str, Any]:
    """Return the settings of training that the iteration depends on; the number of iterations is none of them."""
    settings = asdict(config.train)
    if settings["backbone_weights"]:
        settings["weights_file"] = stamp_file(Path(settings["backbone_weights"]))
    for setting in ("frozen_stride", "start_size", "cluster_weight"):  # which versions before did not know
        if not settings[setting]:
            del settings[setting]
    for setting in ("iterations", "stop_agreement", "cache_gb", "next_epochs" if iteration == 1 else "epochs"):
        del settings[setting]
    if iteration == 1:
        del settings["extend"]
        # The first iteration only stores its confidence; the threshold is applied by the next one.
        settings["min_confidence"] = settings["min_confidence"] > 0
    return settings


def _select_training_settings(settings: dict[str, Any], iteration: int) -> dict[str, Any]:
    """Return those of `_select_settings` that change the network, and not only how images are labelled with it."""
    labelling = {"mask_weight", "cluster_weight"} | ({"min_confidence"} if iteration == 1 else set())
    return {name: value for name, value in settings.items() if name not in labelling}
