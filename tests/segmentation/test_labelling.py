"""Images on their way through the network to files: each is decoded once, with its overlay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photographs
from tiny_segmenter import make_segmenter

from fastcomus.backends.cpu import CpuBackend
from fastcomus.clusters.names import name_clusters
from fastcomus.config import Config, PredictConfig
from fastcomus.images.reading import read_image
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.predicted_files import encode_predicted_files, render_overlay
from fastcomus.segmentation.prediction import predict_and_write
from fastcomus.segmentation.segmenter import Segmenter


@dataclass(frozen=True)
class CountingBackend(CpuBackend):
    decoded: Counter[str] = field(default_factory=Counter)

    def decode(self, place: Path, max_pixels: int) -> np.ndarray:
        self.decoded[place.name] += 1
        return super().decode(place, max_pixels)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return make_segmenter(3)


@pytest.mark.parametrize("overlay", [True, False])
def test_an_image_is_decoded_once_with_and_without_overlay(overlay: bool, segmenter: Segmenter, tmp_path: Path) -> None:
    photographs, names = make_photographs(tmp_path, 6), name_clusters({}, 3)
    (photographs.images / "broken.png").write_bytes(b"no image")
    images = sorted(path.name for path in photographs.images.iterdir())
    config, done = Config(predict=PredictConfig(predict_size=65)), {"02.png"}

    def write(one: Prediction) -> tuple[Prediction, dict[str, bytes]]:
        return one, {} if one.error else dict(encode_predicted_files(one, names, one.pixels, probabilities=True))

    backend = CountingBackend()
    made = list(predict_and_write(segmenter, photographs.images, images, done, write, config, backend, 2, overlay))
    assert backend.decoded == Counter(images)
    assert {one.image for one, _ in made} == set(images) - done
    for one, files in made:
        if one.image == "broken.png":
            assert one.error is not None and one.pixels is None
            continue
        kinds = [f"overlays/{one.image}.jpg"] * overlay + [f"probabilities/{one.image}.npy", f"{one.image}.png"]
        assert list(files) == kinds
        if overlay:
            pixels = read_image(photographs.images / one.image, 10**6)
            assert files[kinds[0]] == render_overlay(pixels, one.compute_labels())
