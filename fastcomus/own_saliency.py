"""`train-saliency` on a run folder: maps of the priors, their refinement, the network; goes on where it was killed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from fastcomus.backends import Backend
from fastcomus.config import Config, EmbedConfig, saliency_priors
from fastcomus.errors import InputError
from fastcomus.image_roots import ImagePlace, ImageRoot
from fastcomus.images import LOST, UnreadableImage
from fastcomus.integrity import check_zip, file_digest, sealed
from fastcomus.interruption import safe_point
from fastcomus.progress import progress_bar
from fastcomus.read_ahead import read_ahead
from fastcomus.run_folder import RunFolder, fingerprint, read_sealed
from fastcomus.saliency import load_proposer
from fastcomus.saliency.network_map import SaliencyNetwork, save_network
from fastcomus.saliency_training import (
    MAP_SIDE,
    EpochState,
    averaged,
    confidence,
    fused,
    predicted_maps,
    small_map,
    train_network,
)
from fastcomus.stage_report import count

log = logging.getLogger("fastcomus")

FOLDER = "saliency"
NETWORK = f"{FOLDER}/network.safetensors"
_PART = 256  # images whose maps lie in one file


@dataclass(frozen=True)
class Photographs:
    """Images that can be read: `names` under `root`, and their maps by the priors, (N, P, L, L) uint8, on disk."""

    read: Callable[[int], np.ndarray]
    priors: Callable[[int], np.ndarray]
    count: int


def train_saliency(
    root: ImageRoot, names: Sequence[str], stamp: str, folder: RunFolder, config: Config, backend: Backend, workers: int
) -> Path:
    """Train a saliency network on the images `names` under `root`, with no label; the path of its checkpoint.

    `stamp` tells one state of the images from another. Raises InputError when fewer than two images can be read.
    """
    chosen = config.saliency
    stage = fingerprint(config=asdict(chosen), seed=config.seed, images=stamp)
    if folder.is_current(FOLDER, stage):
        count(images=(folder.manifest(FOLDER) or {})["images"], epochs=chosen.epochs)
        log.info("train-saliency: up to date, %s", folder.file(NETWORK))
        return folder.file(NETWORK)
    folder.begin(FOLDER, stage)
    network, images = _network(root, names, folder, config, backend, workers)
    refined_by = chosen.refine_backbone if _refines(config) else ""
    folder.write_tensors(NETWORK, lambda path: save_network(network, saliency_priors(chosen), refined_by, path))
    epochs = range(1, chosen.refine_epochs + 1)
    refined_files = [f"refined-{epoch}.{ending}" for epoch in epochs for ending in ("npy", "json")]
    # What each file builds on goes after it: a kill in between leaves nothing that lacks its ground.
    for leaving in ("learn.pt", "refine.pt", *refined_files, "priors"):
        folder.remove(f"{FOLDER}/{leaving}")
    folder.finish(FOLDER, stage, images=images, config=asdict(chosen))
    count(images=images, epochs=chosen.epochs)
    log.info("train-saliency: trained on %d images; use it with --saliency %s", images, folder.file(NETWORK))
    return folder.file(NETWORK)


def _network(
    root: ImageRoot, names: Sequence[str], folder: RunFolder, config: Config, backend: Backend, workers: int
) -> tuple[SaliencyNetwork, int]:
    """The network, and the number of images that it was trained on. No file of maps is open when it returns: Windows
    would not remove one that is."""
    photographs = _prior_maps(root, names, folder, config, backend, workers)
    if photographs.count < 2:
        raise InputError(f"training needs at least 2 images that can be read; got {photographs.count}.")
    labels = photographs.priors
    if _refines(config):
        priors = len(saliency_priors(config.saliency))
        refined = _refined(photographs, priors, folder, config, backend, workers)

        def labels(index: int) -> np.ndarray:
            return np.concatenate([refined(index), photographs.priors(index)])

    return _learnt(photographs, labels, folder, config, backend, workers), photographs.count


def _refines(config: Config) -> bool:
    return len(saliency_priors(config.saliency)) > 1 and config.saliency.refine_epochs > 0


def _prior_maps(
    root: ImageRoot, names: Sequence[str], folder: RunFolder, config: Config, backend: Backend, workers: int
) -> Photographs:
    """Every prior's map of every image, a file per 256 images."""
    proposers = [
        load_proposer(EmbedConfig(saliency=name), torch.device("cpu")) for name in saliency_priors(config.saliency)
    ]
    unreadable = np.zeros((len(proposers), 0, 0), np.uint8)

    def read(name: str) -> np.ndarray:
        return backend.decode(root / name, config.embed.max_pixels)

    def maps_of(name: str) -> np.ndarray:
        try:
            pixels = read(name)
        except UnreadableImage as error:
            if error.reason == LOST:
                raise _gone(root / name, error) from error
            log.warning("train-saliency: skipped %s: %s", name, error)
            return unreadable
        return np.stack([small_map(proposer(name, pixels)[0]) for proposer in proposers if callable(proposer)])

    starts = range(0, len(names), _PART)
    missing = [start for start in starts if not _has_maps(folder, start)]
    with progress_bar("saliency priors", len(names), "images", len(names) - _images(missing, names)) as advance:
        for start in missing:
            part = names[start : start + _PART]
            made = np.zeros((len(part), len(proposers), MAP_SIDE, MAP_SIDE), np.uint8)
            is_read = np.zeros(len(part), bool)
            for place, maps in enumerate(read_ahead(maps_of, part, workers)):
                if maps.size:
                    made[place], is_read[place] = maps, True
                advance(1)
            folder.write_array(_maps_file(start), made)
            facts = {"maps": file_digest(folder.file(_maps_file(start))), "read": is_read.tolist()}
            folder.write_json(_facts_file(start), sealed(facts))
            safe_point()
    parts = [np.load(folder.file(_maps_file(start)), mmap_mode="r") for start in starts]
    is_read = np.concatenate([read_sealed(folder.file(_facts_file(start)))["read"] for start in starts])
    places = np.flatnonzero(is_read)

    def priors(index: int) -> np.ndarray:
        part, place = divmod(int(places[index]), _PART)
        return np.array(parts[part][place])

    def read_again(index: int) -> np.ndarray:
        name = names[places[index]]
        try:
            return read(name)
        except UnreadableImage as error:
            raise _gone(root / name, error) from error

    return Photographs(read_again, priors, len(places))


def _refined(
    photographs: Photographs, count: int, folder: RunFolder, config: Config, backend: Backend, workers: int
) -> Callable[[int], np.ndarray]:
    """Maps of the priors as a network sees them that was trained on all, averaged over its epochs: (P, L, L) uint8."""
    chosen = config.saliency
    clear = _clearest(photographs.priors, photographs.count, chosen.confident_share)
    state = _read_state(folder, "refine")
    done = state.epochs if state else 0
    if done:
        _check_refined(done, folder)
    log.info("train-saliency: refining %d priors, %d of %d epochs are done", count, done, chosen.refine_epochs)
    seen = len(clear) + photographs.count  # images in an epoch: learnt from, then looked at
    with progress_bar("refining", chosen.refine_epochs * seen, "images", done * seen) as advance:
        for network, after in train_network(
            lambda index: photographs.read(clear[index]),
            lambda index: photographs.priors(clear[index]),
            len(clear),
            count,
            chosen,
            config.seed,
            backend.device,
            workers,
            state,
            advance,
        ):
            before = _refined_after(after.epochs - 1, folder) if after.epochs > 1 else None
            now = predicted_maps(
                network, photographs.read, photographs.count, chosen.batch_size, chosen.precision, workers
            )
            # Not through a memory map, for which a full disk is no error but a kill.
            with folder.replacing(f"{FOLDER}/refined-{after.epochs}.npy") as path, path.open("wb") as stream:
                shape = (photographs.count, count, MAP_SIDE, MAP_SIDE)
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False}
                np.lib.format.write_array_header_1_0(stream, {**header, "shape": shape})
                for index, maps in enumerate(now):
                    earlier = None if before is None else before[index]
                    stream.write(averaged(earlier, maps, chosen.moving_average).tobytes())
                    advance(1)
            digest = file_digest(folder.file(f"{FOLDER}/refined-{after.epochs}.npy"))
            folder.write_json(f"{FOLDER}/refined-{after.epochs}.json", sealed({"maps": digest}))
            _write_state(folder, "refine", after)
            del before, now  # Windows removes no file that is mapped
            for ending in ("npy", "json"):
                folder.remove(f"{FOLDER}/refined-{after.epochs - 1}.{ending}")
            safe_point()
            log.info("train-saliency: epoch %d of %d, loss %.3f", after.epochs, chosen.refine_epochs, after.loss)
    return _refined_after(chosen.refine_epochs, folder).__getitem__


def _learnt(
    photographs: Photographs,
    labels: Callable[[int], np.ndarray],
    folder: RunFolder,
    config: Config,
    backend: Backend,
    workers: int,
) -> SaliencyNetwork:
    """The network that learns what the maps `labels(i)`, (P, L, L) uint8, agree on."""
    chosen = config.saliency
    clear = _clearest(labels, photographs.count, chosen.confident_share)
    state = _read_state(folder, "learn")
    done = state.epochs if state else 0
    log.info("train-saliency: training %s, %d of %d epochs are done", chosen.network, done, chosen.epochs)
    network: SaliencyNetwork | None = None
    with progress_bar("training", chosen.epochs * len(clear), "images", done * len(clear)) as advance:
        for trained, after in train_network(
            lambda index: photographs.read(clear[index]),
            lambda index: fused(labels(clear[index])),
            len(clear),
            1,
            chosen,
            config.seed + 1,
            backend.device,
            workers,
            state,
            advance,
        ):
            network = trained
            _write_state(folder, "learn", after)
            safe_point()
            log.info("train-saliency: epoch %d of %d, loss %.3f", after.epochs, chosen.epochs, after.loss)
    if network is None:  # killed between the last epoch and the storing of its network
        assert state is not None
        network = SaliencyNetwork(chosen.network, chosen.size)
        network.load_state_dict(state.state["network"])
    return network


def _gone(image: ImagePlace, error: UnreadableImage) -> InputError:
    return InputError(f"{image} can no longer be read ({error}); put it back, or run the same command without it.")


def _check_refined(epochs: int, folder: RunFolder) -> None:
    maps, facts = (folder.file(f"{FOLDER}/refined-{epochs}.{ending}") for ending in ("npy", "json"))
    if not maps.exists() or read_sealed(facts)["maps"] != file_digest(maps):
        raise InputError(f"{maps} is not what was written; delete the folder {maps.parent} and run the same command.")


def _refined_after(epochs: int, folder: RunFolder) -> np.ndarray:
    """(N, P, L, L) uint8, left on disk."""
    return np.load(folder.file(f"{FOLDER}/refined-{epochs}.npy"), mmap_mode="r")


def _has_maps(folder: RunFolder, start: int) -> bool:
    """Whether the maps from image `start` on are there and whole; InputError where what is said of them is damaged."""
    maps, facts = folder.file(_maps_file(start)), folder.file(_facts_file(start))
    return maps.exists() and facts.exists() and read_sealed(facts)["maps"] == file_digest(maps)


def _facts_file(start: int) -> str:
    """Beside maps, written after them: their digest, and which of the images could be read."""
    return f"{FOLDER}/priors/maps-{start:09d}.json"


def _maps_file(start: int) -> str:
    return f"{FOLDER}/priors/maps-{start:09d}.npy"


def _images(starts: Sequence[int], names: Sequence[str]) -> int:
    return sum(len(names[start : start + _PART]) for start in starts)


def _clearest(maps: Callable[[int], np.ndarray], count: int, share: float) -> list[int]:
    """The share of `count` images, at least two, whose `maps(i)` agree most clearly."""
    clearness = np.array([confidence(maps(index)) for index in range(count)])
    most = np.argsort(-clearness, kind="stable")[: max(2, round(share * count))]
    return np.sort(most).tolist()


def _write_state(folder: RunFolder, name: str, state: EpochState) -> None:
    folder.write_tensors(f"{FOLDER}/{name}.pt", lambda path: torch.save(asdict(state), path))


def _read_state(folder: RunFolder, name: str) -> EpochState | None:
    file = folder.file(f"{FOLDER}/{name}.pt")
    if not file.exists():
        return None
    try:
        check_zip(file)
        return EpochState(**torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{file} cannot be read ({reason}); delete it to train from the start.") from error
