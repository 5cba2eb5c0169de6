"""How objects are found in an image: a table of methods, one file per family.

Methods without a network are a `Proposer`, called as `proposer(name, pixels)` with the image's name in its folder and
its pixels (H, W, 3) uint8. They return saliency maps (M, H, W) float32 in [0, 1], one per object hypothesis (most
methods: M = 1), or masks (M, H, W) bool that need no threshold. They are called from several threads at once.

Methods with a network are a `NetworkProposer`: worker threads prepare images, the network sees a batch of them, and
what it found is enlarged later. Either way the result depends on that image alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError, suggest_names
from fastcomus.objects.saliency.priors import (
    _load_absorbing_markov_chain,
    _load_background_prior,
    _load_minimum_barrier,
)
from fastcomus.objects.saliency.proposer import NetworkProposer, Proposer


@dataclass(frozen=True)
class Method:
    """`about`: what it is, for help and doctor. `load`: makes the proposer. `package`: what it needs to be installed,
    and `extra` which brings it.
    """

    about: str
    load: Callable[[str, EmbedConfig, torch.device], Proposer | NetworkProposer]
    package: str = ""
    extra: str = ""


def _load_network_map(name: str, config: EmbedConfig, device: torch.device) -> NetworkProposer:
    from fastcomus.objects.saliency.network_map import load_network_map

    return load_network_map(name, config, device)


def _load_patch_method(name: str, config: EmbedConfig, device: torch.device) -> NetworkProposer:
    from fastcomus.objects.saliency.patch_methods import load_patch_method

    return load_patch_method(name, config, device)


METHODS: dict[str, Method] = {
    "background-prior": Method(
        "robust background detection; no weights", _load_background_prior, "scikit-image", "offline"
    ),
    "minimum-barrier": Method(
        "minimum barrier distance to the border; no weights",
        _load_minimum_barrier,
        "numba and scikit-image",
        "cpu,offline",
    ),
    "absorbing-markov-chain": Method(
        "absorbed time of a random walk on superpixels; no weights",
        _load_absorbing_markov_chain,
        "scikit-image",
        "offline",
    ),
    "basnet-unsupervised": Method("BASNet trained on DeepUSPS's labels (the paper's)", _load_network_map),
    "basnet-supervised": Method("BASNet trained on human masks", _load_network_map),
    "dinoseg": Method("attention of the encoder's CLS token; a ViT", _load_patch_method),
    "lost": Method("LOST on the encoder's patches", _load_patch_method),
    "tokencut": Method("TokenCut on the encoder's patches", _load_patch_method),
    "maskcut": Method("MaskCut on the encoder's patches, up to three objects per image", _load_patch_method),
    "found": Method("FOUND's decoder on the patches of DINO ViT-S/8", _load_patch_method),
}


def load_proposer(config: EmbedConfig, device: torch.device) -> Proposer | NetworkProposer:
    """The proposer that `config.saliency` names (a method, or a checkpoint file of train-saliency or of BASNet), or
    one that reads the folder `config.benchmark_masks` when that is not empty.

    Raises InputError for a name that `check_saliency` refuses, or weights that cannot be had.
    """
    check_saliency(config)
    if config.masks:
        return _load_mask_folder(config)
    if config.saliency not in METHODS:
        return _load_network_map(config.saliency, config, device)
    method = METHODS[config.saliency]
    try:
        return method.load(config.saliency, config, device)
    except ImportError as error:
        raise InputError(
            f'saliency {config.saliency} needs {method.package}; run pip install "fastcomus[{method.extra}]".'
        ) from error


def check_saliency(config: EmbedConfig) -> None:
    """Raise InputError, before anything is loaded, for a name of no method and no file, or masks that are not there."""
    if config.masks:
        _load_mask_folder(config)
    elif config.saliency not in METHODS and not Path(config.saliency).is_file():
        raise InputError(
            f"saliency must be one of {', '.join(METHODS)}, or a checkpoint file that is there; got "
            f"{config.saliency!r}{suggest_names(config.saliency, METHODS)}"
        )


def _load_mask_folder(config: EmbedConfig) -> Proposer:
    from fastcomus.objects.saliency.mask_folder import MaskFolder

    return MaskFolder(Path(config.masks))
