"""Strips of images in which the loss is computed, since enlarged logits of a whole batch would take most memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

IGNORED = -1  # label of pixels that are not learnt from
LOGITS_AT_ONCE = 2**23  # at the size of the image
_LOGITS_ON_GPU = 2**28  # the same: 1 GiB, and some five times that with what belongs to them
_BYTES_PER_LOGIT = 128  # of a GPU's memory, for each of these


def split_into_strips(
    logits: torch.Tensor, labels: torch.Tensor, most: int = LOGITS_AT_ONCE, are_images_joined: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Cut logits (B, C, h, w) and labels (B, H, W) into single images, and these into strips of rows.

    Enlarged logits of every pixel of a batch would take most of the memory. Neighbouring strips share a row; in the
    upper one its labels are IGNORED. H - 1 is a multiple of h - 1.

    Args:
        logits: (B, C, h, w).
        labels: (B, H, W).
        most: Enlarged logits that a strip may have.
        are_images_joined: Whether whole images share a strip as far as that allows, as a GPU likes it.

    Yields:
        Logits (b, C, r, w) and labels (b, R, W) of each strip; b is 1 unless images are joined.
    """
    images = max(1, most // (logits.shape[1] * labels[0].numel())) if are_images_joined else 1
    stride = (labels.shape[1] - 1) // (logits.shape[2] - 1)
    rows = max(1, most // (logits.shape[1] * labels.shape[2] * stride))
    for image, its_labels in zip(logits.split(images), labels.split(images), strict=True):
        for top in range(0, logits.shape[2] - 1, rows):
            strip = image[:, :, top : top + rows + 1]
            of_strip = its_labels[:, top * stride : (top + rows) * stride + 1]
            if of_strip.shape[1] < its_labels.shape[1] - top * stride:
                of_strip = of_strip.clone()
                of_strip[:, -1] = IGNORED
            yield strip, of_strip


def plan_strips(device: torch.device) -> tuple[int, bool]:
    """Plan the last two arguments of `split_into_strips`: a CPU's cache likes small strips, a GPU few launches.

    Args:
        device: Where the network trains.

    Returns:
        The most logits of a strip, and whether images are joined.
    """
    if device.type == "cpu":
        return LOGITS_AT_ONCE, False
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(LOGITS_AT_ONCE, min(_LOGITS_ON_GPU, memory // _BYTES_PER_LOGIT)), True
