"""Choose the preset for `--preset auto`."""

from __future__ import annotations

import logging

from fastcomus.config import Config
from fastcomus.networks.cache import is_present
from fastcomus.networks.registry import FOUND_DECODER, FOUND_ENCODER
from fastcomus.networks.weights import PROBE_SECONDS, is_obtainable
from fastcomus.settings import get_preset_config, with_settings

log = logging.getLogger("fastcomus")


def choose_config() -> Config:
    """Return the configuration of the preset that auto takes, without FOUND where its weights are not to be had."""
    config = get_preset_config(choose_preset())
    if config.embed.saliency != FOUND_DECODER or is_obtainable([FOUND_DECODER, FOUND_ENCODER]):
        return config
    log.info("preset auto: saliency auto, since the weights of found are neither here nor to be fetched")
    return with_settings(config, {"embed": {"saliency": "auto"}})


def choose_preset() -> str:
    """Return "dino" where its weights are present or can be downloaded, else "offline"; log which and why."""
    config = get_preset_config("dino")
    wanted = [config.embed.encoder, config.train.backbone]
    if is_obtainable(wanted):
        log.info("preset auto: dino, since the weights of %s are here or can be fetched", " and ".join(wanted))
        return "dino"
    log.info(
        "preset auto: offline, since the weights of %s are neither here nor to be fetched within %.0f s",
        " and ".join(name for name in wanted if not is_present(name)),
        PROBE_SECONDS,
    )
    return "offline"
