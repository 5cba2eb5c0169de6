"""Objects from patch features: DINOSeg, LOST, TokenCut and MaskCut on the encoder's network, FOUND on its own."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fastcomus.backends.interface import Image
from fastcomus.backends.machine import move_to_device
from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.networks import weights
from fastcomus.networks.compiled_batches import FixedBatches
from fastcomus.networks.encoders import PatchEncoder, PatchFeatures, load_patch_encoder
from fastcomus.networks.precision import choose_precision
from fastcomus.networks.registry import FOUND_DECODER, FOUND_ENCODER
from fastcomus.objects.saliency.attention_mass import compute_attention_masks
from fastcomus.objects.saliency.found import compute_found_map
from fastcomus.objects.saliency.lost import run_lost
from fastcomus.objects.saliency.normalized_cut import run_mask_cut, run_token_cut
from fastcomus.objects.saliency.proposer import choose_images_per_pass, resize_to_square

Find = Callable[[PatchFeatures], torch.Tensor]


class PatchMethod:
    """A `NetworkProposer` on the patch features of an encoder. Empty masks are left out of its results.

    Args:
        encoder: The network.
        size: The side of the square to which images are stretched, rounded to a multiple of the patch size.
        find: Makes maps or masks (N, M, h, w) of the features of N images.
        is_compiled: Whether the network is compiled, for batches of one size.
    """

    needs_host_pixels = False

    def __init__(self, encoder: PatchEncoder, size: int, find: Find, is_compiled: bool = False) -> None:
        self.encoder = encoder
        self.side = max(1, round(size / encoder.patch_size)) * encoder.patch_size
        self.find = find
        self.device = encoder.mean.device
        self.batch = choose_images_per_pass(self.device)
        self.features: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = self._compute_features
        if is_compiled:
            self.features = FixedBatches(self._compute_features, self.batch, self.device)

    def prepare(self, pixels: Image) -> torch.Tensor:
        """See `NetworkProposer.prepare`."""
        return resize_to_square(pixels, self.side)

    @torch.inference_mode()
    def propose(self, prepared: torch.Tensor) -> list[torch.Tensor]:
        """See `NetworkProposer.propose`."""
        found = self.find(PatchFeatures(*self.features(move_to_device(prepared, self.device))))
        is_not_empty = found.flatten(2).any(2).cpu()  # for all at once, since it waits for the device
        return [maps[chosen] for maps, chosen in zip(found, is_not_empty, strict=True)]

    def _compute_features(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The fields of `PatchFeatures`, as a tuple of tensors so that it can be compiled."""
        features = self.encoder(images)
        return features.cls, features.patches, features.keys, features.attention


def load_patch_method(name: str, config: EmbedConfig, device: torch.device) -> PatchMethod:
    """Load "dinoseg", "lost", "tokencut" or "maskcut" on the network of `config.encoder`, or "found" on its own.

    Raises:
        InputError: If the network does not provide what the method needs, or weights are not available.
    """
    precision = choose_precision(config.saliency_precision, device)
    chosen = (FOUND_ENCODER, "") if name == "found" else (config.encoder, config.encoder_weights)
    encoder = load_patch_encoder(*chosen, precision, device)
    if name == "dinoseg" and not encoder.has_attention:
        raise InputError(
            f"dinoseg looks at the attention of a ViT's CLS token, and {config.encoder} shows none; give --encoder "
            "vit_small_patch8_224.dino, or --saliency tokencut."
        )
    find: dict[str, Find] = {
        "dinoseg": lambda features: compute_attention_masks(features.attention)[:, None],
        "lost": lambda features: run_lost(features.keys).masks[:, None],
        "tokencut": lambda features: run_token_cut(features.keys).masks[:, None],
        "maskcut": lambda features: run_mask_cut(features.keys),
    }
    if name == "found":
        find["found"] = _load_found(device)
    return PatchMethod(encoder, config.saliency_size, find[name], config.compile)


def _load_found(device: torch.device) -> Find:
    state = weights.read_checkpoint(weights.obtain_checkpoint_file(FOUND_DECODER))
    try:
        weight, bias = state["decoder.weight"].to(device), state["decoder.bias"].to(device)
    except KeyError as error:
        raise InputError(f"the checkpoint of found holds no {error}; it must be FOUND's own decoder.") from error

    def find(features: PatchFeatures) -> torch.Tensor:
        maps = compute_found_map(features.keys, weight, bias)
        has_object = (maps > 0.5).flatten(1).any(1)
        return (maps * has_object[:, None, None])[:, None]

    return find
