"""Saliency maps of the priors for `train-saliency`, kept in files of 256 images each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.images.found import LOST, ImageList, UnreadableImage
from fastcomus.images.roots import ImagePlace
from fastcomus.interruption import reach_safe_point
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.objects.saliency.training import MAP_SIDE, shrink_map
from fastcomus.progress import show_progress
from fastcomus.run.workplace import Workplace
from fastcomus.settings import parse_priors
from fastcomus.store.integrity import compute_file_digest, seal_json
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import read_sealed

log = logging.getLogger("fastcomus")
FOLDER = "saliency"
_PART = 256  # images whose maps lie in one file


@dataclass(frozen=True)
class Photographs:
    """The images that can be read, and their saliency maps on disk.

    Attributes:
        read: Returns the pixels (H, W, 3) uint8 of an image by its index.
        priors: Returns the maps (P, L, L) uint8 of its P priors, L = `MAP_SIDE`.
        count: Number of images.
    """

    read: Callable[[int], np.ndarray]
    priors: Callable[[int], np.ndarray]
    count: int


def compute_prior_maps(found: ImageList, at: Workplace) -> Photographs:
    """Compute every prior's map of every image, except those that are on disk from an earlier attempt.

    Args:
        found: The images; those that cannot be read are skipped.
        at: The run folder, the settings and the device.

    Raises:
        InputError: Where an image can no longer be read, or files of an earlier attempt are damaged.
    """
    root, names, folder = found.root, found.names, at.folder
    cpu = torch.device("cpu")
    proposers = [load_proposer(EmbedConfig(saliency=name), cpu) for name in parse_priors(at.config.saliency)]
    unreadable = np.zeros((len(proposers), 0, 0), np.uint8)

    def read(name: str) -> np.ndarray:
        return at.backend.decode(root / name, at.config.embed.max_pixels)

    def compute_maps(name: str) -> np.ndarray:
        try:
            pixels = read(name)
        except UnreadableImage as error:
            if error.reason == LOST:
                raise _build_gone_error(root / name, error) from error
            log.warning("train-saliency: skipped %s: %s", name, error)
            return unreadable
        return np.stack([shrink_map(proposer(name, pixels)[0]) for proposer in proposers if callable(proposer)])

    starts = range(0, len(names), _PART)
    missing = [start for start in starts if not _has_maps(folder, start)]
    with show_progress("saliency priors", len(names), "images", len(names) - _count_images(missing, names)) as advance:
        for start in missing:
            part = names[start : start + _PART]
            made = np.zeros((len(part), len(proposers), MAP_SIDE, MAP_SIDE), np.uint8)
            is_read = np.zeros(len(part), bool)
            for place, maps in enumerate(read_ahead(compute_maps, part, at.workers)):
                if maps.size:
                    made[place], is_read[place] = maps, True
                advance(1)
            folder.write_array(_get_maps_file(start), made)
            facts = {"maps": compute_file_digest(folder.resolve_file(_get_maps_file(start))), "read": is_read.tolist()}
            folder.write_json(_get_facts_file(start), seal_json(facts))
            reach_safe_point()
    parts = [np.load(folder.resolve_file(_get_maps_file(start)), mmap_mode="r") for start in starts]
    is_read = np.concatenate([read_sealed(folder.resolve_file(_get_facts_file(start)))["read"] for start in starts])
    places = np.flatnonzero(is_read)

    def priors(index: int) -> np.ndarray:
        part, place = divmod(int(places[index]), _PART)
        return np.array(parts[part][place])

    def read_again(index: int) -> np.ndarray:
        name = names[places[index]]
        try:
            return read(name)
        except UnreadableImage as error:
            raise _build_gone_error(root / name, error) from error

    return Photographs(read_again, priors, len(places))


def _build_gone_error(image: ImagePlace, error: UnreadableImage) -> InputError:
    return InputError(f"{image} can no longer be read ({error}); put it back, or run the same command without it.")


def _has_maps(folder: RunFolder, start: int) -> bool:
    """Return whether the maps from image `start` on are intact; raise InputError where their facts are damaged."""
    maps, facts = folder.resolve_file(_get_maps_file(start)), folder.resolve_file(_get_facts_file(start))
    return maps.exists() and facts.exists() and read_sealed(facts)["maps"] == compute_file_digest(maps)


def _get_facts_file(start: int) -> str:
    """Return the file that is written after the maps: their digest, and which of the images could be read."""
    return f"{FOLDER}/priors/maps-{start:09d}.json"


def _get_maps_file(start: int) -> str:
    return f"{FOLDER}/priors/maps-{start:09d}.npy"


def _count_images(starts: Sequence[int], names: Sequence[str]) -> int:
    return sum(len(names[start : start + _PART]) for start in starts)
