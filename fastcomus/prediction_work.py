"""`predict` as work for any engine: a piece is a window of images that share batches, what comes back are files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastcomus.backends import Backend
from fastcomus.cluster_names import ClusterNames
from fastcomus.config import Config
from fastcomus.engines import Loaded, Stored
from fastcomus.folded_batch_norm import with_folded_batch_norms
from fastcomus.image_roots import ImageRoot
from fastcomus.images import Skipped, UnreadableImage
from fastcomus.labelling import labelled
from fastcomus.prediction import Prediction
from fastcomus.run_folder import RunFolder, encode_class_map, mask_file, palette
from fastcomus.segmenter_files import load_segmenter

_OVERLAY_QUALITY = 90  # of JPEG


@dataclass(frozen=True)
class Window:
    """Images that may share batches, and those among them that are `done` already."""

    names: tuple[str, ...]
    done: frozenset[str]


@dataclass(frozen=True)
class PredictedFiles:
    """The files of one image, by name, in the order in which they are to be written; or why there are none."""

    image: str
    files: tuple[tuple[str, bytes], ...] = ()
    skipped: Skipped | None = None
    images: int = 1


@dataclass(frozen=True)
class PredictWork:
    """Labelling images under `root` by the network of `iteration` of the run folder `run`."""

    run: Path
    iteration: int
    root: ImageRoot
    names: ClusterNames
    overlay: bool
    probabilities: bool
    config: Config

    def load(self, backend: Backend, workers: int) -> Loaded[Window, PredictedFiles]:
        segmenter = with_folded_batch_norms(load_segmenter(RunFolder(self.run), self.iteration), torch.uint8)

        def label(
            pieces: Sequence[Window], then: Callable[[PredictedFiles], Stored], on_images: Callable[[int], None]
        ) -> Iterator[Stored]:
            names = [name for window in pieces for name in window.names]
            done = frozenset().union(*(window.done for window in pieces))

            def write(prediction: Prediction) -> Stored:
                return then(self._files_of(prediction, backend))

            for stored in labelled(segmenter, self.root, names, done, write, self.config, backend, workers):
                on_images(1)
                yield stored

        return label

    def _files_of(self, prediction: Prediction, backend: Backend) -> PredictedFiles:
        """Runs in a thread. The mask comes last: it says that all is there."""
        image = prediction.image
        mask, overlay, probabilities = prediction_files(image, True, True)
        files = []
        try:
            if prediction.error is not None:
                raise prediction.error
            labels = self.names.class_map(prediction.labels())
            if self.overlay:
                pixels = backend.decode(self.root / image, self.config.embed.max_pixels)
                files.append((overlay, overlay_picture(pixels, labels)))
        except UnreadableImage as error:
            return PredictedFiles(image, skipped=Skipped(image, error.reason, error.detail))
        if self.probabilities:
            files.append((probabilities, _array_file(_by_class(prediction.probabilities(), self.names))))
        files.append((mask, encode_class_map(labels)))
        return PredictedFiles(image, tuple(files))


def prediction_files(name: str, overlay: bool, probabilities: bool) -> list[str]:
    """The mask of an image, then what else is asked for."""
    stem = mask_file(name).removesuffix(".png")
    extra = [f"overlays/{stem}.jpg"] * overlay + [f"probabilities/{stem}.npy"] * probabilities
    return [mask_file(name), *extra]


def overlay_picture(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """A JPEG of `pixels` (H, W, 3) uint8, objects of `labels` (H, W) tinted half in the masks' colours.

    Labels above 255 take the colours of 1 to 255 again.
    """
    colours = palette()[np.where(labels == 0, 0, (labels.astype(np.int64) - 1) % 255 + 1)]
    tinted = (pixels.astype(np.uint16) + colours + 1) // 2
    stream = io.BytesIO()
    picture = np.where(labels[:, :, None] > 0, tinted, pixels).astype(np.uint8)
    Image.fromarray(picture).save(stream, format="JPEG", quality=_OVERLAY_QUALITY)
    return stream.getvalue()


def _by_class(probabilities: np.ndarray, names: ClusterNames) -> np.ndarray:
    """Probabilities (k + 1, h, w) of clusters as those of classes (C + 1, h, w), float16."""
    if not names.given:
        return probabilities
    sums = np.zeros((len(names.classes), *probabilities.shape[1:]), np.float32)
    np.add.at(sums, names.class_of_label, probabilities)
    return sums.astype(np.float16)


def _array_file(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
