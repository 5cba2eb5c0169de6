"""Saliency maps by a network: BASNet (the paper's), or one trained by `fastcomus train-saliency`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from fastcomus.backends.interface import Image
from fastcomus.backends.machine import move_to_device
from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.errors import InputError
from fastcomus.networks import weights
from fastcomus.networks.compiled_batches import FixedBatches
from fastcomus.networks.edges import choose_grid, fit_to_edges
from fastcomus.networks.fixed_padding import align_side
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.precision import choose_precision, use_precision
from fastcomus.objects.saliency.basnet import BASNet
from fastcomus.objects.saliency.batched_prior import BatchedPriors
from fastcomus.objects.saliency.common_features import SIDE, CommonFeatures, FeatureGrid
from fastcomus.objects.saliency.proposer import Proposer, choose_images_per_pass, resize_to_square, stretch_maps
from fastcomus.objects.saliency.pyramid import PyramidNetwork
from fastcomus.store.integrity import TENSOR_SEAL, compute_tensor_digest

BASNET = "basnet"
_METADATA = "fastcomus_saliency"  # key of the description in a checkpoint's metadata
_DIRECTION = "common_features"  # key of their direction among a checkpoint's tensors
_REACH = 0.08  # half the side of the window in which a map follows edges, as a share of the image's side
_FLAT = 1e-3  # a map with a smaller range of values shows nothing
_WIDTH, _WIDTH_BEFORE = 64, 96  # of pyramids now, and of those whose files do not say; 96 found objects no better
_COARSEST = 32  # stride of a backbone's last layer
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class SaliencyNetwork(nn.Module):
    """BASNet, or a backbone under a feature pyramid.

    Args:
        network: "basnet", or the name of a backbone.
        size: The side of the images in which it looks for objects; `side` is the nearest one that it can take.
        maps: Maps per image: 1, or the number of priors that it refines.
        pretrained: Whether the backbone begins with its published weights.
        width: Features of the pyramid's layers.
    """

    def __init__(self, network: str, size: int, maps: int = 1, pretrained: bool = False, width: int = _WIDTH) -> None:
        super().__init__()
        self.description = {"network": network, "size": size, "width": width}
        self.body: nn.Module
        self.mean: torch.Tensor  # (1, 3, 1, 1), of pixels in [0, 255]; for BASNet alone
        self.std: torch.Tensor
        if network == BASNET:
            self.body = BASNet()
            mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) * 255 for values in _IMAGENET)
            self.register_buffer("mean", mean, persistent=False)
            self.register_buffer("std", std, persistent=False)
        else:
            self.body = PyramidNetwork(network, maps, pretrained, width)
        self.side = self.fit_side(size)

    def fit_side(self, size: int) -> int:
        """Return the side of images nearest to `size` that the network can take, in pixels."""
        return max(32, round(size / 32) * 32) if isinstance(self.body, BASNet) else align_side(size, _COARSEST)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits (N, maps, S, S) float32 of images (N, 3, S, S) uint8."""
        return self.compute_all_logits(images)[0]

    def compute_all_logits(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute all logits that the loss is applied to: those of `forward`, and BASNet's of coarser scales."""
        if not isinstance(self.body, BASNet):
            return (self.body(images),)
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return tuple(one.float() for one in self.body.compute_logits((pixels - self.mean) / self.std))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device


class NetworkMap:
    """A `NetworkProposer` that gives one saliency map per image, stretched to [0, 1].

    A map is stretched by its own smallest and largest value. The original program takes those of the whole batch, which
    makes a map depend on the other images; for a batch of one image both are the same.

    Args:
        network: The network; images are stretched to a square of its side. None: the priors alone, weighed by `common`.
        precision: Of its computations.
        priors: Methods without weights that the network learnt from, for one image each, or `BatchedPriors`. They know
            the outlines in this image, the network what the images have in common, and they err in different places.
        prior_weight: The share of the priors' mean map in the result, in [0, 1].
        power: To which the stretched maps are raised. The network saw labels and images on coarse grids and is blurred
            around objects, and Otsu's threshold, which takes both sides to vary alike, falls onto the blur.
        is_compiled: Whether the network is compiled, for batches of one size.
        common: Weighs the network's map and the priors' by what objects have in common, if not None.
        follows_edges: Whether the network's map, weighed, changes where the image does. The priors' maps do by
            themselves: they know superpixels and pixels.
    """

    def __init__(
        self,
        network: SaliencyNetwork | None,
        precision: str,
        priors: Sequence[Proposer] | BatchedPriors = (),
        prior_weight: float = 0.0,
        power: float = 1.0,
        is_compiled: bool = False,
        common: CommonFeatures | None = None,
        follows_edges: bool = False,
    ) -> None:
        self.network = None if network is None else with_folded_batch_norms(network.eval(), torch.uint8)
        if network is None:
            assert common is not None
            self.side, self.device, prior_weight = SIDE, common.grid.device, 1.0
        else:
            self.side, self.device = network.side, network.device
        self.common = common
        self.precision = precision
        self.batched = priors if isinstance(priors, BatchedPriors) and prior_weight else None
        self.priors = tuple(priors) if prior_weight and not isinstance(priors, BatchedPriors) else ()
        self.prior_weight = prior_weight if self.priors or self.batched else 0.0
        self.power = power
        self.follows_edges = follows_edges and network is not None
        self.needs_host_pixels = bool(self.priors)
        self.batch = choose_images_per_pass(self.device)
        self.run: Callable[[torch.Tensor], torch.Tensor] = self._run_network
        if is_compiled and network is not None:
            self.run = FixedBatches(self._run_network, self.batch, self.device)

    def prepare(self, pixels: Image) -> torch.Tensor:
        """Make an image's input: (3, S, S) uint8, or (4, S, S) with the priors' mean map last, 255 for 1."""
        image = resize_to_square(pixels, self.side)
        if not self.priors:
            return image
        assert isinstance(pixels, np.ndarray)
        mean = sum(prior("", pixels)[0] for prior in self.priors) / len(self.priors)
        return torch.cat([image, resize_to_square((mean[..., None] * 255).round().astype(np.uint8), self.side)])

    @torch.inference_mode()
    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """See `NetworkProposer.propose`."""
        given = move_to_device(prepared, self.device)
        mean = self._compute_prior_maps(given)
        maps = [] if self.network is None else [self.run(given[:, :3])]
        maps += [] if mean is None else [mean]
        if self.common is not None:
            maps = self.common.weigh(given[:, :3], maps)
        if self.follows_edges:
            coarse = functional.interpolate(maps[0], choose_grid(self.side, self.side), mode="area")
            maps[0] = fit_to_edges(coarse[:, 0], given[:, :3], _REACH)[:, None]
        joined = torch.lerp(maps[0], maps[1], self.prior_weight) if len(maps) > 1 else maps[0]
        return list(self._stretch(joined))

    def _compute_prior_maps(self, given: torch.Tensor) -> torch.Tensor | None:
        """The priors' mean maps (N, 1, S, S) float32; None if they do not count."""
        if self.batched:
            mean = self.batched.compute_mean_maps(given)
            return functional.interpolate(mean, (self.side, self.side), mode="bilinear")
        return given[:, 3:].float() / 255 if self.priors else None

    def _run_network(self, images: torch.Tensor) -> torch.Tensor:
        """Maps (N, 1, S, S) float32 of a batch on the network's device."""
        assert self.network is not None
        with use_precision(self.device, self.precision):
            logits = self.network(images)
        return torch.sigmoid(logits.float())

    def _stretch(self, maps: torch.Tensor) -> torch.Tensor:
        return stretch_maps(maps, _FLAT).pow(self.power)


def load_network_map(
    name: str, config: EmbedConfig, device: torch.device, load_prior: Callable[[str], Proposer]
) -> NetworkMap:
    """Load a saliency network: "basnet-unsupervised", "basnet-supervised", or a file of train-saliency or of BASNet.

    `load_prior` loads a method without weights by its name.

    Raises:
        InputError: If the weights are not available or belong to another network.
    """
    precision = choose_precision(config.saliency_precision, device)
    priors: list[Proposer] | BatchedPriors = []
    power, follows_edges = 1.0, False
    common = None
    network: SaliencyNetwork | None = None
    if Path(name).is_file() and (described := _read_description(Path(name))):
        tensors = dict(weights.read_checkpoint(Path(name)))
        direction = tensors.pop(_DIRECTION, None)
        if described["network"]:
            width = described.get("width", _WIDTH_BEFORE)
            network = SaliencyNetwork(described["network"], described["size"], width=width)
            weights.load_exactly(network, tensors, name)
        power, follows_edges = config.map_power, config.map_edges
        names = described.get("priors", []) if config.prior_weight or network is None else []
        if direction is not None or network is None:
            grid = FeatureGrid(described.get("features", ""), device, config.saliency_precision)
            if direction is None or direction.shape != (grid.channels,):
                raise InputError(f"{name} lacks the direction of its features; run fastcomus train-saliency again.")
            common = CommonFeatures(grid, direction)
        if device.type == "cuda" and names and set(names) <= set(SALIENCY_PRIORS):
            priors = BatchedPriors(device, names)
        else:
            priors = [_load_known_prior(one, name, load_prior) for one in names]
    else:
        file = Path(name) if Path(name).is_file() else weights.obtain_checkpoint_file(name)
        network = SaliencyNetwork(BASNET, config.saliency_size)
        weights.load_exactly(network.body, weights.read_checkpoint(file), name)
    if network is not None:
        network = network.to(device).to(memory_format=torch.channels_last)
    weight, is_compiled = config.prior_weight, config.compile
    return NetworkMap(network, precision, priors, weight, power, is_compiled, common, follows_edges)


def find_networks_behind(saliency: str) -> set[str]:
    """Find the names of the networks behind a method or checkpoint file, to tell which were trained with labels.

    Raises:
        InputError: If the description in the checkpoint is broken.
    """
    if saliency.startswith(BASNET):
        return {saliency}
    described = _read_description(Path(saliency)) if Path(saliency).is_file() else None
    if described is None:
        return set()
    return {described["network"], described.get("features", ""), *described.get("refined_by", [])} - {BASNET, ""}


def check_network(name: str) -> None:
    """Raise InputError, with the nearest names, unless `name` is "basnet" or a known backbone."""
    if name != BASNET:
        weights.check_name(name)


def save_network(
    network: SaliencyNetwork | None,
    priors: Sequence[str],
    refined_by: str,
    path: Path,
    common: CommonFeatures | None = None,
) -> None:
    """Write a safetensors file that `load_network_map` takes.

    Args:
        network: The network, or None for `common` alone.
        priors: The methods that it learnt from.
        refined_by: The backbone that refined its labels, or "".
        path: The file.
        common: What the objects of the images that it learnt from have in common, or None.
    """
    state = {} if network is None else network.state_dict()
    described: dict[str, Any] = {"network": "", "size": SIDE} if network is None else network.description
    learnt: dict[str, Any] = {"priors": list(priors), "refined_by": [refined_by] if refined_by else []}
    if common is not None:
        state = {**state, _DIRECTION: common.direction}
        learnt["features"] = common.grid.backbone
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    described = {**described, **learnt, TENSOR_SEAL: compute_tensor_digest(tensors)}
    save_file(tensors, path, metadata={_METADATA: json.dumps(described)})


def _read_description(file: Path) -> dict[str, Any] | None:
    """The description that `save_network` stored in `file`, or None for other files."""
    try:
        with safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(_METADATA)
        found = json.loads(text) if text else None
    except Exception:  # not a safetensors file; `read_checkpoint` says so where it matters
        return None
    if found is None:
        return None
    is_known = isinstance(found, dict) and isinstance(found.get("network"), str) and type(found.get("size")) is int
    is_known = is_known and isinstance(found.get("features", ""), str)
    is_known = is_known and bool(found["network"] or (found.get("features") and found.get("priors")))
    if not is_known or found.get("width", _WIDTH_BEFORE) not in (_WIDTH, _WIDTH_BEFORE):
        raise InputError(f"{file} does not say which saliency network it holds; run fastcomus train-saliency again.")
    return found


def _load_known_prior(prior: Any, checkpoint: str, load_prior: Callable[[str], Proposer]) -> Proposer:
    if prior not in SALIENCY_PRIORS:
        raise InputError(
            f"{checkpoint} was trained on a prior {prior!r} that this fastcomus does not know; train anew."
        )
    return load_prior(prior)
