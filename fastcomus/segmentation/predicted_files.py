"""The files that `predict` writes for an image: mask, overlay, probabilities."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fastcomus.clusters.names import ClusterNames
from fastcomus.store.masks import get_mask_file_name, make_voc_palette

_OVERLAY_QUALITY = 90  # of JPEG


def list_prediction_files(name: str, overlay: bool, probabilities: bool) -> list[str]:
    """The mask of an image, then what else is asked for."""
    stem = get_mask_file_name(name).removesuffix(".png")
    extra = [f"overlays/{stem}.jpg"] * overlay + [f"probabilities/{stem}.npy"] * probabilities
    return [get_mask_file_name(name), *extra]


def render_overlay(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A JPEG of `pixels` (H, W, 3) uint8, objects of `labels` (H, W) tinted half in the masks' colours.

    Labels above 255 take the colours of 1 to 255 again.
    """
    colours = make_voc_palette()[np.where(labels == 0, 0, (labels.astype(np.int64) - 1) % 255 + 1)]
    tinted = (pixels.astype(np.uint16) + colours + 1) // 2
    stream = io.BytesIO()
    picture = np.where(labels[:, :, None] > 0, tinted, pixels).astype(np.uint8)
    Image.fromarray(picture).save(stream, format="JPEG", quality=_OVERLAY_QUALITY)
    return stream.getvalue()


def _sum_by_class(probabilities: np.ndarray, names: ClusterNames) -> np.ndarray:
    """Probabilities (k + 1, h, w) of clusters as those of classes (C + 1, h, w), float16."""
    if not names.given:
        return probabilities
    sums = np.zeros((len(names.classes), *probabilities.shape[1:]), np.float32)
    np.add.at(sums, names.class_of_label, probabilities)
    return sums.astype(np.float16)


def _encode_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
