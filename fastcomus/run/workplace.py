"""What every command on a run folder works with: the folder, its settings, a device, and who else takes part."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcomus.config import Config
from fastcomus.errors import InputError, suggest_path
from fastcomus.images.addresses import is_url
from fastcomus.images.found import ImageList
from fastcomus.images.listing import Images, find_listed_images
from fastcomus.images.roots import ImageRoot, describe_root
from fastcomus.networks.inference import check_inference, check_inference_device, choose_inference
from fastcomus.networks.registry import is_supervised
from fastcomus.objects.saliency.methods import AUTO, METHODS
from fastcomus.processes import detect_process_group
from fastcomus.run.earlier_settings import rewrite_settings
from fastcomus.run.engines.choose import choose_engine
from fastcomus.run.engines.several_devices import parse_devices
from fastcomus.run.engines.work import Engine
from fastcomus.run.preset import choose_config
from fastcomus.settings import find_changed_settings, from_dict, get_preset_config, resolve, to_dict, with_settings
from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

log = logging.getLogger("fastcomus")


class Workplace:
    """One run folder with its resolved settings, on a device of this machine.

    Attributes:
        folder: The run folder on disk.
        backend: The device on which heavy operations run; loaded when it is first asked for.
        workers: Threads that read images, at least 1.
        processes: The processes that train together; one, unless torchrun or srun started several.
        inference: What runs trained networks, "auto", "torch" or "openvino"; see `networks.inference`.
        images: The root of the images that were embedded, as a path or an address; "" where there are none.
    """

    def __init__(
        self,
        folder: Path | str,
        preset: str | None,
        seed: int | None,
        device: str,
        workers: int | None,
        settings: Mapping[str, Any] | None,
        images: Path | str = "",
        inference: str = "auto",
        deterministic: bool = False,
    ) -> None:
        check_inference(inference)
        self.inference = inference
        self.folder = RunFolder(folder)
        self.processes = detect_process_group()
        self._wanted_device, self._is_deterministic = device, deterministic
        self._devices = parse_devices(device)
        if set(self._devices) - {"auto", "cpu"}:  # those are there, and torch takes two seconds
            from fastcomus.backends.devices import resolve_device

            for one in self._devices:
                resolve_device(one)
        if workers is not None and workers < 0:
            raise InputError(f"workers must be at least 1, or 0 for one per core; got {workers}.")
        self._asked_workers = workers or None
        self.workers = workers or os.cpu_count() or 1
        state = self.folder.read_state() or {}
        self.images = _locate_images(str(images), state.get("images", ""))
        stored = rewrite_settings(state["config"]) if state else None
        self._resolve_given = partial(resolve, stored, preset, seed, settings or {})
        self._laid_over: list[Mapping[str, Any]] = []
        self._resolve(_guess_config)

    @cached_property
    def config(self) -> Config:
        """The settings as they are remembered; seeking weights for the preset auto takes seconds at most."""
        return self._resolve(choose_config)

    def lay_over(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Lay settings over those of the run; InputError where one cannot be."""
        if "config" in self.__dict__:
            self.config = with_settings(self.config, settings)
        else:
            self._laid_over.append(settings)
            self._resolve(_guess_config)

    def list_images(self, images: Images, settings: Mapping[str, Any] | None = None) -> ImageList:
        """List images, of a video as many frames as the settings of `embed` say, over which `settings` are laid."""
        config = with_settings(self._resolve(_guess_config), {"embed": settings or {}})
        return find_listed_images(images, config.embed.every_seconds)

    def check_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise InputError unless settings can be laid over those of the run."""
        with_settings(self._resolve(_guess_config), settings)

    def _resolve(self, choose: Callable[[], Config]) -> Config:
        config = self._resolve_given(choose)
        for settings in self._laid_over:
            config = with_settings(config, settings)
        return config

    @cached_property
    def backend(self) -> Backend:
        """The device on which heavy operations run, loaded when first asked for."""
        from fastcomus.backends import choose

        backend = choose.select(self.processes.choose_device(self._devices[0]), self._is_deterministic)
        check_inference_device(self.inference, backend.device_name)  # else training would end before it is told
        return backend

    def describe_device(self) -> str:
        """Name the device that was worked on: the CPU where nothing has asked for the backend so far."""
        return self.backend.device_name if "backend" in self.__dict__ else "cpu"

    def take_decoded_counts(self) -> dict[str, int]:
        """Count the images that were decoded since the last call; see `BatchDecoder.take_counts`."""
        if "backend" not in self.__dict__:
            return {}
        from fastcomus.backends.read_ahead import take_decoded_counts

        return take_decoded_counts(self.backend)

    def choose_engine(self, name: str, address: str) -> Engine:
        """Choose where the work on images is done: here, on several devices of this machine, or on a Ray cluster.

        Args:
            name: "local" or "ray".
            address: Of the Ray cluster; "" for none.

        Returns:
            The engine; it has loaded and started nothing yet.

        Raises:
            InputError: If there is no such engine, or no cluster answers at the address.
        """
        cores = os.cpu_count() or 1
        return choose_engine(
            name, address, self._wanted_device, self._devices, lambda: self.backend, self._asked_workers, cores
        )

    def choose_inference(self, images: int, worth_it_from: int) -> str:
        """Return what runs networks that `images` images will see, "torch" or "openvino"; see `choose_inference`."""
        device = ",".join(self._devices) if len(self._devices) > 1 else self.backend.device_name
        return choose_inference(self.inference, device, images, worth_it_from)

    def open_beside(self, folder: Path, config: Config) -> Workplace:
        """Return a workplace on the same device for another run folder, with the settings `config`."""
        other = Workplace(
            folder, None, None, self._wanted_device, self._asked_workers, to_dict(config), inference=self.inference
        )
        other.backend = self.backend
        return other

    def hold_folder(self) -> AbstractContextManager[None]:
        """Keep other processes from writing to the run folder inside the block.

        Of processes that train together the first one holds the lock for all.

        Raises:
            InputError: If another process holds the lock.
        """
        return self.folder.writer.hold() if self.processes.is_first else nullcontext()

    def remember(self, config: Config, images: ImageRoot | None = None) -> None:
        """Take `config` from now on and write it to run.json, with what a reader of the results must know about it.

        Of several processes that train together only the first one writes.
        """
        self.config = config
        if images is not None:
            self.images = describe_root(images)
        if not self.processes.is_first:
            return
        stored = self.folder.read_state() or {}
        _tell_dropped_settings(stored.get("config", {}), config)
        same = stored.get("images") == self.images and stored.get("config") == to_dict(config)
        if same and config.embed.saliency != AUTO:
            return  # what is told of the networks holds, and finding out again could import timm
        is_own = config.embed.masks.lower().endswith(".parquet")  # objects that came with their embeddings
        networks = {
            *([] if is_own else [config.embed.encoder]),
            config.train.backbone,
            *self._find_saliency_networks(config),
        }
        supervised = sorted(name for name in networks if is_supervised(name))
        notes = [f"{name} was trained with human labels (ImageNet's classes)." for name in supervised]
        state = {"images": self.images, "config": to_dict(config), "notes": notes if self.images else []}
        if {"format": stored.get("format"), **state} != stored:
            self.folder.write_state(state)
        for note in state["notes"]:
            if note not in stored.get("notes", []):
                log.warning("note: %s", note)

    def _find_saliency_networks(self, config: Config) -> set[str]:
        """Return the networks that find the objects; most methods have none, and then nothing heavy is imported."""
        saliency = config.embed.saliency
        if config.embed.masks or (saliency in METHODS and not saliency.startswith("basnet")):
            return set()
        if saliency == AUTO:
            if not any(self.folder.path.glob("saliency/network-*.safetensors")):
                return set()
            refined_by = {config.saliency.refine_backbone} if config.saliency.refine_epochs else set()
            return {config.saliency.network, *refined_by} - {"basnet"}
        from fastcomus.objects.saliency.network_map import find_networks_behind

        return find_networks_behind(saliency)


def _guess_config() -> Config:
    """Return a configuration with which settings can be checked before it is known which preset auto takes."""
    return get_preset_config("offline")


def _locate_images(moved: str, remembered: str) -> str:
    """Return where the images lie: where they were moved to, if that was given."""
    if not moved:
        return remembered
    if not remembered:
        raise InputError("--images says where the images of a run lie now, and this one has none; run fastcomus embed.")
    if is_url(moved) or not Path(moved).exists():
        near = suggest_path(Path(moved)) or "."
        raise InputError(f"--images must be the folder that holds the images now; there is no {moved}{near}")
    return str(Path(moved).resolve())


def _tell_dropped_settings(stored: Mapping[str, Any], config: Config) -> None:
    """Say which remembered settings another preset does away with."""
    before = stored.get("preset")
    if before in (None, config.preset):
        return
    own, usual = (find_changed_settings(one) for one in (from_dict(stored), config))
    if dropped := [name for name in own if name not in usual]:
        told = "note: preset %s starts anew; what was set with preset %s holds no more: %s"
        log.warning(told, config.preset, before, ", ".join(dropped))
