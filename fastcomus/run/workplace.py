"""What the commands on a run folder share: where they work, with what, and what the folder holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastcomus.backends.interface import Backend
from fastcomus.config import Config
from fastcomus.images.roots import ImageRoot
from fastcomus.objects.saliency.methods import METHODS
from fastcomus.processes import ProcessGroup
from fastcomus.store.embeddings import join_rows
from fastcomus.store.objects_table import count_shard_rows, iterate_shards
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ImageSource:
    """Images that can be read: names under `root`. Their masks lie under `folder`/masks of an iteration."""

    root: ImageRoot
    names: tuple[str, ...]
    folder: str = ""
    stamp: str = ""


@dataclass(frozen=True)
class Surroundings:
    """Where and with what an iteration runs."""

    folder: RunFolder
    config: Config
    backend: Backend
    workers: int
    processes: ProcessGroup = field(default_factory=ProcessGroup)


def _read_embedding_rows(folder: RunFolder) -> np.ndarray:
    """(N, D) float32, the embeddings of all objects in a run folder."""
    return join_rows(iterate_shards(folder, ["embedding"]), count_shard_rows(folder), folder.path)


def _find_saliency_networks(config: Config) -> set[str]:
    """Networks that find the objects; `find_networks_behind` loads torch, and most methods have none."""
    if config.embed.masks or (config.embed.saliency in METHODS and not config.embed.saliency.startswith("basnet")):
        return set()
    from fastcomus.objects.saliency.network_map import find_networks_behind

    return find_networks_behind(config.embed.saliency)
