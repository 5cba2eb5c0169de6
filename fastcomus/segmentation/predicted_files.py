"""The files that `predict` writes for an image: mask, overlay, probabilities."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fastcomus.clusters.names import ClusterNames
from fastcomus.store.masks import encode_class_map, get_mask_file_name, make_voc_palette

if TYPE_CHECKING:
    from fastcomus.segmentation.class_scores import Prediction

_OVERLAY_QUALITY = 90  # of JPEG


def list_prediction_files(name: str, overlay: bool, probabilities: bool) -> list[str]:
    """List the files of an image, the mask first, relative to the folder that `predict` writes."""
    stem = get_mask_file_name(name).removesuffix(".png")
    extra = [f"overlays/{stem}.jpg"] * overlay + [f"probabilities/{stem}.npy"] * probabilities
    return [get_mask_file_name(name), *extra]


def encode_predicted_files(
    prediction: Prediction, names: ClusterNames, pixels: np.ndarray | None, probabilities: bool
) -> tuple[tuple[str, bytes], ...]:
    """Make the files of an image that could be read, the mask last: where it exists, the others do.

    Args:
        prediction: What was predicted.
        names: The classes that clusters are mapped to, where they were named.
        pixels: (H, W, 3) uint8, the image to draw the overlay on; None for no overlay.
        probabilities: Whether to write the probabilities.
    """
    mask, overlay_file, probabilities_file = list_prediction_files(prediction.image, True, True)
    labels = names.map_to_classes(prediction.compute_labels())
    files = []
    if pixels is not None:
        files.append((overlay_file, render_overlay(pixels, labels)))
    if probabilities:
        files.append((probabilities_file, _encode_npy(_sum_by_class(prediction.compute_probabilities(), names))))
    return (*files, (mask, encode_class_map(labels)))


def render_overlay(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """Draw an image (H, W, 3) uint8 as JPEG, objects tinted half in the masks' colours; above 255 these begin again."""
    colours = make_voc_palette()[np.where(labels == 0, 0, (labels.astype(np.int64) - 1) % 255 + 1)]
    tinted = (pixels.astype(np.uint16) + colours + 1) // 2
    stream = io.BytesIO()
    picture = np.where(labels[:, :, None] > 0, tinted, pixels).astype(np.uint8)
    Image.fromarray(picture).save(stream, format="JPEG", quality=_OVERLAY_QUALITY)
    return stream.getvalue()


def _sum_by_class(probabilities: np.ndarray, names: ClusterNames) -> np.ndarray:
    """Turn probabilities (k + 1, h, w) of clusters into those of classes (C + 1, h, w), float16."""
    if not names.given:
        return probabilities
    sums = np.zeros((len(names.classes), *probabilities.shape[1:]), np.float32)
    np.add.at(sums, names.class_of_label[: len(probabilities)], probabilities)  # of added clusters it knows nothing
    return sums.astype(np.float16)


def _encode_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
