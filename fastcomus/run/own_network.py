"""`--saliency auto`: a folder with enough photographs teaches a network of its own, which then finds the objects."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from fastcomus.config import SALIENCY_STEPS, Config, EmbedConfig
from fastcomus.images.found import ImageList
from fastcomus.objects.saliency.methods import AUTO
from fastcomus.progress import collect_counts, format_estimate
from fastcomus.run.judged_objects import ALWAYS_SEVERAL, SEVERAL
from fastcomus.run.workplace import Workplace
from fastcomus.settings import parse_priors
from fastcomus.store.run_folder import RunFolder

log = logging.getLogger("fastcomus")
PRIOR = "three-priors"  # what finds the objects of few photographs
FASTEST_PRIOR = "background-prior"
OWN = "own:"  # what a mark begins with that stands for a network of the folder's own
# Of one core: a prior on an image; efficientnet-lite0 on one of 256 px in a step; its first layers on one.
_PRIOR_S, _PASS_S, _FEATURES_S = 0.07, 0.3, 0.05


def mark_saliency(found: ImageList, config: Config) -> str:
    """Return what stands for the way of finding objects in fingerprints.

    It is `config.embed.saliency`; for "auto" what that means for these images: the fingerprint of the network that they
    teach, of few that of what their objects have in common, or PRIOR.
    """
    if config.embed.saliency != AUTO or config.embed.masks:
        return config.embed.saliency
    if not has_enough_images(found, config) and not (config.saliency.common_features and len(found.names) > 1):
        return PRIOR
    # Only now, since what this imports takes seconds.
    from fastcomus.run.saliency_network import check_backbones, fingerprint_network

    check_backbones(config)
    return f"{OWN}{fingerprint_network(found, config, has_enough_images(found, config))}"


def obtain_saliency(mark: str, found: ImageList, config: Config, at: Workplace) -> str:
    """Return the method or the file that `mark` stands for; train the network that the folder teaches, if need be."""
    embed = config.embed
    has_network = has_enough_images(found, config)
    if embed.saliency == AUTO and not embed.masks and not has_network:
        instead = PRIOR if mark == PRIOR else f"{PRIOR}, weighed by what their objects have in common"
        told = (len(found.names), config.saliency.least_images, instead)
        log.info("saliency auto: %d photographs are too few to teach a network (%d would do): %s", *told)
    if not mark.startswith(OWN):
        return mark
    from fastcomus.networks.encoders import load_encoder
    from fastcomus.run.saliency_network import NothingToLearn, obtain_network

    # Missing weights of the encoder are told before minutes of training.
    load_encoder(embed.encoder, embed.encoder_weights, embed.crop_size, embed.precision, at.backend.device)
    at.remember(config)
    if has_network:
        _tell_plan(mark, found, at)
    try:
        with collect_counts():  # images that teach are not counted as those of embed
            return str(obtain_network(found, at, has_network).absolute())
    except NothingToLearn as error:
        log.warning("saliency auto: %s Until then: %s", error, PRIOR)
        return PRIOR


def shorten_saliency(saliency: str, folder: RunFolder) -> str:
    """Return a method as it is, and a network of the run folder relative to it, for the objects' manifest."""
    own = folder.path.absolute()
    return Path(saliency).relative_to(own).as_posix() if Path(saliency).is_relative_to(own) else saliency


def restore_settings(config: Config, folder: RunFolder) -> EmbedConfig:
    """Return the settings with which the objects of the run folder were found; "auto" and verdicts are settled."""
    made = folder.read_manifest("objects") or {}
    embed = replace(config.embed, objects=made.get("objects", config.embed.objects))
    if embed.objects == SEVERAL:
        embed = replace(embed, objects=ALWAYS_SEVERAL)
    made_by = made.get("saliency", "")
    if embed.saliency != AUTO or not made_by:
        return embed
    own = folder.resolve_file(made_by)
    return replace(embed, saliency=str(own.absolute()) if own.is_file() else made_by)


def has_to_teach(mark: str, folder: RunFolder) -> bool:
    """Tell whether `mark` stands for a network that the run folder has not got yet."""
    if not mark.startswith(OWN):
        return False
    from fastcomus.run.saliency_network import locate_network

    return not locate_network(mark.removeprefix(OWN), folder).exists()


def estimate_teaching(mark: str, found: ImageList, at: Workplace) -> tuple[int, float]:
    """Return how many photographs teach the network that `mark` stands for, and in about how many seconds.

    Both are 0 where it is there, or where no network is taught.
    """
    if not has_to_teach(mark, at.folder):
        return 0, 0.0
    from fastcomus.networks.schedules import choose_epochs
    from fastcomus.run.saliency_network import select_teachers

    chosen, cores = at.config.saliency, at.workers
    images = len(select_teachers(found, at.config).names)
    seconds = images * len(parse_priors(chosen)) * _PRIOR_S / cores
    if chosen.common_features and at.backend.device_name == "cpu":
        seconds += images * 2 * _FEATURES_S / cores
    if not has_enough_images(found, at.config):
        return images, seconds
    clear = max(2, round(images * chosen.confident_share))
    epochs = choose_epochs(chosen.epochs, clear, chosen.batch_size, SALIENCY_STEPS) + chosen.refine_epochs
    if at.backend.device_name == "cpu":
        seconds += clear * epochs * _PASS_S * (min(chosen.train_size or chosen.size, chosen.size) / 256) ** 2 / cores
    return images, seconds


def has_enough_images(found: ImageList, config: Config) -> bool:
    """Tell whether these are enough images for a network, if one is to be taught."""
    return len(found.names) >= config.saliency.least_images


def _tell_plan(mark: str, found: ImageList, at: Workplace) -> None:
    images, seconds = estimate_teaching(mark, found, at)
    if not images:
        return
    log.info(
        "saliency auto: %d of %d photographs first teach a network of their own, in about %s (once; "
        "--saliency %s goes without)",
        images,
        len(found.names),
        format_estimate(seconds),
        FASTEST_PRIOR,
    )
