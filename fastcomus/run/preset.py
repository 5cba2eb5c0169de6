"""Choose the preset for `--preset auto`."""

from __future__ import annotations

import logging

from fastcomus.networks.cache import is_present
from fastcomus.networks.registry import FOUND_DECODER, FOUND_ENCODER
from fastcomus.networks.weights import PROBE_SECONDS, is_obtainable
from fastcomus.settings import get_preset_config

log = logging.getLogger("fastcomus")


def choose_preset() -> str:
    """Return "dino" where its weights are present or can be downloaded, else "offline"; log which and why."""
    config = get_preset_config("dino")
    wanted = [config.embed.encoder, config.train.backbone, FOUND_DECODER, FOUND_ENCODER]
    if is_obtainable(wanted):
        log.info("preset auto: dino, since the weights of %s are here or can be fetched", ", ".join(wanted))
        return "dino"
    log.info(
        "preset auto: offline, since the weights of %s are neither here nor to be fetched within %.0f s",
        ", ".join(name for name in wanted if not is_present(name)),
        PROBE_SECONDS,
    )
    return "offline"
