"""A saliency network made on a folder: maps of the priors, their refinement, and a network trained on them.

Every step is stored, so that the same command resumes after a kill.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from fastcomus.config import SALIENCY_STEPS, Config
from fastcomus.errors import InputError, get_first_line
from fastcomus.images.found import ImageList
from fastcomus.images.stamps import stamp_images
from fastcomus.interruption import reach_safe_point
from fastcomus.networks.registry import check_name
from fastcomus.networks.schedules import choose_epochs
from fastcomus.objects.saliency.common_features import CommonFeatures, FeatureGrid
from fastcomus.objects.saliency.network_map import SaliencyNetwork, check_network, save_network
from fastcomus.objects.saliency.training import (
    MAP_SIDE,
    EpochState,
    average_maps,
    compute_confidence,
    fuse_maps,
    predict_maps,
    train_network,
)
from fastcomus.progress import count, show_progress
from fastcomus.run.drawn_images import draw_images
from fastcomus.run.saliency_maps import FOLDER, Photographs, compute_prior_maps
from fastcomus.run.weighed_maps import weigh_maps
from fastcomus.run.workplace import Workplace
from fastcomus.settings import parse_priors
from fastcomus.store.folder import build_write_error
from fastcomus.store.integrity import check_zip, compute_file_digest, seal_json
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint, read_sealed

log = logging.getLogger("fastcomus")
_NEW = f"{FOLDER}/network.safetensors"  # until all else is done
_NETWORKS = f"{FOLDER}/network-*.safetensors"  # one for each set of settings and images that was asked for


class NothingToLearn(InputError):  # noqa: N818 - named after what was found
    """Images from which no network can be made, since few can be read or nothing in them stands out."""


def check_backbones(config: Config) -> None:
    """Raise InputError, with the nearest names, unless the networks that `config.saliency` names are known."""
    check_network(config.saliency.network)
    check_name(config.saliency.refine_backbone)


def fingerprint_network(found: ImageList, config: Config, has_network: bool = True) -> str:
    """Return the fingerprint of the network that these images teach: of its settings and of the images it sees.

    Without `has_network` it is that of what their objects have in common alone.
    """
    chosen = asdict(config.saliency)
    del chosen["least_images"]  # it says when a network is made, not which
    for setting in ("frozen_stride", "train_size", "common_features"):  # which versions before did not know
        if not chosen[setting]:
            del chosen[setting]
    if not has_network:
        chosen["network"] = ""
    taught_by = select_teachers(found, config)
    stamp = compute_fingerprint(images=stamp_images(taught_by, taught_by.names, None))
    return compute_fingerprint(config=chosen, seed=config.seed, images=stamp)


def locate_network(fingerprint: str, folder: RunFolder) -> Path:
    """Return where the network of a fingerprint lies in a run folder, or will."""
    return folder.resolve_file(f"{FOLDER}/network-{fingerprint[:12]}.safetensors")


def select_teachers(found: ImageList, config: Config) -> ImageList:
    """Return the images that the network learns from: all, or `max_images` of them that the seed and names decide."""
    return draw_images(found, config.saliency.max_images or len(found.names), config.seed)


def obtain_network(found: ImageList, at: Workplace, has_network: bool = True) -> Path:
    """Return the file of the network that these images teach; train it unless the run folder has it.

    A network stays in the run folder when other settings or images ask for another one.

    Args:
        found: The images.
        at: The run folder, the settings and the device.
        has_network: Whether a network is trained; otherwise the file holds what the objects have in common alone.

    Returns:
        The file.

    Raises:
        NothingToLearn: Fewer than two images can be read, or no prior finds anything in any of them.
    """
    config, folder = at.config, at.folder
    chosen, whole = config.saliency, fingerprint_network(found, config, has_network)
    made = locate_network(whole, folder)
    if made.exists():
        log.info("train-saliency: up to date, %s", made if has_network else "what the photographs have in common")
        return made
    if not folder.is_current(FOLDER, whole):  # else an attempt was killed before the network got its name
        folder.begin(FOLDER, whole, kept={one.name for one in folder.path.glob(_NETWORKS)})
        network, common, trained_on = _train_from_priors(select_teachers(found, config), at, has_network)
        refined_by = chosen.refine_backbone if has_network and _is_refining(config) else ""
        folder.write_tensors(_NEW, lambda path: save_network(network, parse_priors(chosen), refined_by, path, common))
        _remove_intermediate_files(folder, chosen.refine_epochs)
        folder.finish(FOLDER, whole, images=trained_on, config=asdict(chosen))
        log.info("train-saliency: %s %d images", "taught by" if has_network else "found what is common to", trained_on)
    folder.writer.claim()
    try:
        folder.resolve_file(_NEW).replace(made)
    except OSError as error:
        raise build_write_error(made, error) from error
    return made


def _train_from_priors(
    found: ImageList, at: Workplace, has_network: bool
) -> tuple[SaliencyNetwork | None, CommonFeatures | None, int]:
    """Return the network, what the objects have in common, and the number of images that taught both.

    No file of maps is open when this returns, since Windows does not remove open files.
    """
    chosen = at.config.saliency
    grid = None  # made now, since a backbone that cannot be used is told before minutes of priors
    if chosen.common_features:
        grid = FeatureGrid(chosen.refine_backbone, at.backend.device, chosen.precision)
    photographs = compute_prior_maps(found, at)
    if photographs.count < 2:
        raise NothingToLearn(f"training needs at least 2 images that can be read; got {photographs.count}.")
    if not any(photographs.priors(index).any() for index in range(photographs.count)):
        raise NothingToLearn(
            f"nothing stands out in any of the {photographs.count} images, so there is nothing to learn from; give "
            "photographs of objects, or masks of your own with --masks."
        )
    labels = photographs.priors
    if has_network and _is_refining(at.config):
        refined = _refine_maps(photographs, at)

        def labels(index: int) -> np.ndarray:
            return np.concatenate([refined(index), photographs.priors(index)])

    common = None
    if grid is not None:
        common, labels = weigh_maps(grid, photographs, labels, at, has_network)
    return _fit_network(photographs, labels, at) if has_network else None, common, photographs.count


def _is_refining(config: Config) -> bool:
    return len(parse_priors(config.saliency)) > 1 and config.saliency.refine_epochs > 0


def _refine_maps(photographs: Photographs, at: Workplace) -> Callable[[int], np.ndarray]:
    """Train one network on the maps of all priors; return its maps (P, L, L) uint8, averaged over the epochs."""
    chosen, folder = at.config.saliency, at.folder
    priors = len(parse_priors(chosen))
    clear = _select_clearest(photographs.priors, photographs.count, chosen.confident_share)
    state = _read_state(folder, "refine")
    done = state.epochs if state else 0
    if done:
        _check_refined(done, folder)
    log.info("train-saliency: refining %d priors, %d of %d epochs are done", priors, done, chosen.refine_epochs)
    seen = len(clear) + photographs.count  # images in an epoch: for training, then for new maps
    with show_progress("refining", chosen.refine_epochs * seen, "images", done * seen) as advance:
        for network, after in train_network(
            lambda index: photographs.read(clear[index]),
            lambda index: photographs.priors(clear[index]),
            len(clear),
            priors,
            chosen,
            at.config.seed,
            at.backend.device,
            at.backend.is_deterministic,
            at.workers,
            state,
            advance,
        ):
            _write_refined(network, after.epochs, priors, photographs, at, advance)
            _write_state(folder, "refine", after)
            for ending in ("npy", "json"):
                folder.remove(f"{FOLDER}/refined-{after.epochs - 1}.{ending}")
            reach_safe_point()
            log.info("train-saliency: epoch %d of %d, loss %.3f", after.epochs, chosen.refine_epochs, after.loss)
    return _load_refined(chosen.refine_epochs, folder).__getitem__


def _write_refined(
    network: SaliencyNetwork,
    epoch: int,
    priors: int,
    photographs: Photographs,
    at: Workplace,
    on_images: Callable[[int], None],
) -> None:
    """Write the moving average of the network's maps after `epoch`; no file is mapped when this returns."""
    chosen, folder = at.config.saliency, at.folder
    name, images = f"{FOLDER}/refined-{epoch}", photographs.count
    before = _load_refined(epoch - 1, folder) if epoch > 1 else None
    now = predict_maps(network, photographs.read, images, chosen.batch_size, chosen.precision, at.workers)
    # Not written through a memory map, where a full disk would be a crash instead of an error.
    with folder.replace_file(f"{name}.npy") as path, path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (images, priors, MAP_SIDE, MAP_SIDE)})
        for index, maps in enumerate(now):
            earlier = None if before is None else before[index]
            stream.write(average_maps(earlier, maps, chosen.moving_average).tobytes())
            on_images(1)
    folder.write_json(f"{name}.json", seal_json({"maps": compute_file_digest(folder.resolve_file(f"{name}.npy"))}))


def _check_refined(epochs: int, folder: RunFolder) -> None:
    maps, facts = (folder.resolve_file(f"{FOLDER}/refined-{epochs}.{ending}") for ending in ("npy", "json"))
    if not maps.exists() or read_sealed(facts)["maps"] != compute_file_digest(maps):
        raise InputError(f"{maps} is not what was written; delete the folder {maps.parent} and run the same command.")


def _load_refined(epochs: int, folder: RunFolder) -> np.ndarray:
    """Return a memory map of (N, P, L, L) uint8."""
    maps: np.ndarray = np.load(folder.resolve_file(f"{FOLDER}/refined-{epochs}.npy"), mmap_mode="r")
    return maps


def _fit_network(photographs: Photographs, labels: Callable[[int], np.ndarray], at: Workplace) -> SaliencyNetwork:
    """Return a network trained on the fused maps `labels(index)`, (P, L, L) uint8."""
    chosen = at.config.saliency
    clear = _select_clearest(labels, photographs.count, chosen.confident_share)
    epochs = choose_epochs(chosen.epochs, len(clear), chosen.batch_size, SALIENCY_STEPS)
    chosen = replace(chosen, epochs=epochs)
    count(images=photographs.count, epochs=epochs)
    state = _read_state(at.folder, "learn")
    done = state.epochs if state else 0
    told = (chosen.network, len(clear), photographs.count, done, chosen.epochs)
    log.info("train-saliency: training %s on the clearest %d of %d images, %d of %d epochs are done", *told)
    network: SaliencyNetwork | None = None
    with show_progress("training", chosen.epochs * len(clear), "images", done * len(clear)) as advance:
        for trained, after in train_network(
            lambda index: photographs.read(clear[index]),
            lambda index: fuse_maps(labels(clear[index])),
            len(clear),
            1,
            chosen,
            at.config.seed + 1,
            at.backend.device,
            at.backend.is_deterministic,
            at.workers,
            state,
            advance,
        ):
            network = trained
            _write_state(at.folder, "learn", after)
            reach_safe_point()
            log.info("train-saliency: epoch %d of %d, loss %.3f", after.epochs, chosen.epochs, after.loss)
    if network is None:  # an earlier attempt was killed after the last epoch, before its network was stored
        assert state is not None
        network = SaliencyNetwork(chosen.network, chosen.size)
        network.load_state_dict(state.state["network"])
    return network


def _select_clearest(maps: Callable[[int], np.ndarray], count: int, share: float) -> list[int]:
    """Return the share of the `count` images, at least two, whose maps are the most confident; in order."""
    clearness = np.array([compute_confidence(maps(index)) for index in range(count)])
    most = np.argsort(-clearness, kind="stable")[: max(2, round(share * count))]
    chosen: list[int] = np.sort(most).tolist()
    return chosen


def _write_state(folder: RunFolder, name: str, state: EpochState) -> None:
    stored = vars(state)  # asdict would copy every tensor
    folder.write_tensors(f"{FOLDER}/{name}.pt", lambda path: torch.save(stored, path))


def _read_state(folder: RunFolder, name: str) -> EpochState | None:
    file = folder.resolve_file(f"{FOLDER}/{name}.pt")
    if not file.exists():
        return None
    try:
        check_zip(file)
        return EpochState(**torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        raise InputError(
            f"{file} cannot be read ({get_first_line(error)}); delete it to train from the start."
        ) from error


def _remove_intermediate_files(folder: RunFolder, refine_epochs: int) -> None:
    """Remove each file before those it was made from, so that a kill in between is harmless."""
    refined = [f"refined-{epoch}.{ending}" for epoch in range(1, refine_epochs + 1) for ending in ("npy", "json")]
    for name in ("learn.pt", "refine.pt", *refined, "priors"):
        folder.remove(f"{FOLDER}/{name}")
