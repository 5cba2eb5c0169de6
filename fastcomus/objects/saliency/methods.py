"""The table of saliency methods (step 1), each in a file of its own or of its family.

A method without a network is a `Proposer`, called as `proposer(name, pixels)` with the image's name in its folder and
its pixels (H, W, 3) uint8, from several threads at once. It returns saliency maps (M, H, W) float32 in [0, 1], one per
object hypothesis (for most methods M = 1), or masks (M, H, W) bool that need no threshold.

A method with a network is a `NetworkProposer`: worker threads prepare images, the network takes a batch of them, and
its maps are enlarged later. In both cases the result for an image depends on that image alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.errors import InputError, suggest_names
from fastcomus.objects.saliency.mask_folder import MaskFolder
from fastcomus.objects.saliency.proposal_file import ProposalFile

if TYPE_CHECKING:
    import torch

    from fastcomus.objects.saliency.proposer import NetworkProposer, Proposer

AUTO = "auto"  # a network that the photographs teach, or a prior; `run/own_network.py` says which


@dataclass(frozen=True)
class Method:
    """A saliency method.

    Attributes:
        about: What it is, for help and doctor.
        load: Makes the proposer, from the method's name, the settings and a device.
        packages: What it needs beyond the required packages, by the names that pip knows.
    """

    about: str
    load: Callable[[str, EmbedConfig, torch.device], Proposer | NetworkProposer]
    packages: tuple[str, ...] = ()


# A method's file is imported only when the method is used, since it may need packages that are not installed.


def _load_prior(name: str, config: EmbedConfig, device: torch.device) -> Proposer | NetworkProposer:
    if device.type == "cuda":
        from fastcomus.objects.saliency.batched_prior import BatchedPriors

        return BatchedPriors(device, (name,))
    if name == "background-prior":
        from fastcomus.objects.saliency.background_prior import BackgroundPrior

        return BackgroundPrior()
    if name == "minimum-barrier":
        from fastcomus.objects.saliency.minimum_barrier import MinimumBarrier

        return MinimumBarrier()
    from fastcomus.objects.saliency.absorbing_markov_chain import AbsorbingMarkovChain

    return AbsorbingMarkovChain()


def _load_prior_mean(name: str, config: EmbedConfig, device: torch.device) -> Proposer | NetworkProposer:
    if device.type == "cuda":
        from fastcomus.objects.saliency.batched_prior import BatchedPriors

        return BatchedPriors(device, SALIENCY_PRIORS)
    from fastcomus.objects.saliency.prior_mean import PriorMean

    return PriorMean([_load_single_prior(prior) for prior in SALIENCY_PRIORS])


def _load_single_prior(name: str) -> Proposer:
    """Load a prior for single images on the host, where threads share the work."""
    import torch

    proposer = load_proposer(EmbedConfig(saliency=name), torch.device("cpu"))
    assert callable(proposer)
    return proposer


def _load_network_map(name: str, config: EmbedConfig, device: torch.device) -> NetworkProposer:
    from fastcomus.objects.saliency.network_map import load_network_map

    return load_network_map(name, config, device, _load_single_prior)


def _load_patch_method(name: str, config: EmbedConfig, device: torch.device) -> NetworkProposer:
    from fastcomus.objects.saliency.patch_methods import load_patch_method

    return load_patch_method(name, config, device)


METHODS: dict[str, Method] = {
    "background-prior": Method("robust background detection; no weights", _load_prior, ("numba",)),
    "minimum-barrier": Method("minimum barrier distance to the border; no weights", _load_prior, ("numba",)),
    "absorbing-markov-chain": Method(
        "absorbed time of a random walk on superpixels; no weights", _load_prior, ("numba",)
    ),
    "three-priors": Method("the mean of the three priors above; no weights", _load_prior_mean, ("numba",)),
    "basnet-unsupervised": Method("BASNet trained on DeepUSPS's labels (the paper's)", _load_network_map),
    "basnet-supervised": Method("BASNet trained on human masks", _load_network_map),
    "dinoseg": Method("attention of the encoder's CLS token; a ViT", _load_patch_method),
    "lost": Method("LOST on the encoder's patches", _load_patch_method),
    "tokencut": Method("TokenCut on the encoder's patches", _load_patch_method),
    "maskcut": Method("MaskCut on the encoder's patches, up to three objects per image", _load_patch_method),
    "found": Method("FOUND's decoder on the patches of DINO ViT-S/8", _load_patch_method),
}


def load_proposer(config: EmbedConfig, device: torch.device) -> Proposer | NetworkProposer:
    """Load the proposer that the settings name.

    Args:
        config: `masks`, if not empty, is a folder of masks or a JSON of proposals; otherwise `saliency` is a method or
            a checkpoint file of train-saliency or of BASNet.
        device: Where networks run.

    Raises:
        InputError: If `check_saliency` does, a package is missing, or weights are not available.
    """
    assert config.saliency != AUTO or config.masks, "auto stands for a method that has to be chosen before"
    check_saliency(config)
    if config.masks:
        return _load_masks(config)
    if config.objects != "one":
        return _load_several(config, device)
    if config.saliency not in METHODS:
        return _load_network_map(config.saliency, config, device)
    method = METHODS[config.saliency]
    try:
        return method.load(config.saliency, config, device)
    except ImportError as error:
        raise InputError(
            f"saliency {config.saliency} needs {' and '.join(method.packages)}; run pip install "
            f"{' '.join(method.packages)}."
        ) from error


def _load_several(config: EmbedConfig, device: torch.device) -> NetworkProposer:
    from fastcomus.networks.encoders import load_patch_encoder
    from fastcomus.networks.precision import choose_precision
    from fastcomus.objects.saliency.several import SeveralObjects

    precision = choose_precision(config.saliency_precision, device)
    encoder = load_patch_encoder(config.encoder, config.encoder_weights, precision, device)
    return SeveralObjects(load_proposer(replace(config, objects="one"), device), encoder, config.theta)


def check_saliency(config: EmbedConfig, images: Sequence[str] = ()) -> None:
    """Check `config.masks` and `config.saliency` without loading weights.

    Args:
        config: The settings.
        images: Names of the images, where they are known.

    Raises:
        InputError: If the folder of masks is unusable or has no mask of these images, or `saliency` is neither a
            method nor an existing file.
    """
    if config.masks:
        _load_masks(config).check_names(images)
    elif config.saliency not in (AUTO, *METHODS) and not Path(config.saliency).is_file():
        raise InputError(
            f"saliency must be one of {', '.join([AUTO, *METHODS])}, or a checkpoint file that is there; got "
            f"{config.saliency!r}{suggest_names(config.saliency, [AUTO, *METHODS])}"
        )


def _load_masks(config: EmbedConfig) -> MaskFolder | ProposalFile:
    file = Path(config.masks)
    return ProposalFile(file) if file.suffix.lower() == ".json" and file.is_file() else MaskFolder(file)
