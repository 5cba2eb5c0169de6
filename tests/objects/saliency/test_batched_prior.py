"""The background prior in batches against the one on single images, by the code that runs on a GPU."""

from __future__ import annotations

import os

import numpy as np
import torch
from scipy.sparse.csgraph import floyd_warshall
from skimage import data

from fastcomus.backends.cpu import compute_otsu_threshold, resize_maps
from fastcomus.config import EmbedConfig
from fastcomus.objects.saliency.background_prior import BackgroundPrior
from fastcomus.objects.saliency.batched_prior import BatchedBackgroundPrior, _find_shortest_paths
from fastcomus.objects.saliency.methods import load_proposer

DEVICE = torch.device(os.environ.get("FASTCOMUS_TEST_DEVICE", "cpu"))
PICTURES = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]


def plant_object(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc of one colour on a noisy ground of another, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = (y - height * 0.55) ** 2 + (x - width * 0.45) ** 2 < (0.25 * min(height, width)) ** 2
    colours = np.array([[60, 110, 70], [190, 80, 60]])[mask.astype(int)]
    return (colours + rng.normal(0, 8, colours.shape)).clip(0, 255).astype(np.uint8), mask


def find_map(pixels: np.ndarray) -> np.ndarray:
    prior = BatchedBackgroundPrior(DEVICE)
    return prior.propose(prior.prepare(pixels)[None])[0].cpu().numpy()


def test_planted_objects_are_found() -> None:
    for number, (height, width) in enumerate([(200, 300), (330, 180), (60, 500)]):
        pixels, mask = plant_object(height, width, number)
        saliency = resize_maps(find_map(pixels), mask.shape)[0]
        found = saliency > compute_otsu_threshold(saliency)
        assert (found & mask).sum() / (found | mask).sum() > 0.8


def test_maps_are_like_those_of_the_prior_on_single_images() -> None:
    for pixels in PICTURES:
        ours, theirs = resize_maps(find_map(pixels), pixels.shape[:2])[0], BackgroundPrior()("", pixels)[0]
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.8
        assert ours.min() < 0.02 and ours.max() > 0.98


def test_a_map_depends_on_its_image_alone() -> None:
    prior = BatchedBackgroundPrior(DEVICE)
    prepared = torch.stack([prior.prepare(pixels) for pixels in PICTURES])
    together = prior.propose(prepared)
    for number, one in enumerate(together):
        assert one.shape == (1, *prepared.shape[2:]) and one.dtype == torch.float32
        assert torch.allclose(one, prior.propose(prepared[number : number + 1])[0], atol=1e-5)


def test_one_colour_has_no_object() -> None:
    for colour in (0, 127, 255):
        assert not find_map(np.full((50, 70, 3), colour, np.uint8)).any()


def test_shortest_paths_are_scipys() -> None:
    rng = np.random.default_rng(0)
    distances = rng.random((2, 289, 289), dtype=np.float32) + 0.01
    distances += distances.transpose(0, 2, 1)
    linked = rng.random((2, 289, 289)) < 0.02
    linked |= linked.transpose(0, 2, 1)
    linked[:, np.arange(289), np.arange(289)] = False
    found = _find_shortest_paths(torch.from_numpy(distances), torch.from_numpy(linked)).numpy()
    for ours, lengths, joined in zip(found, distances, linked, strict=True):
        assert np.allclose(ours, floyd_warshall(np.where(joined, lengths, 0)), rtol=1e-5)


def test_a_gpu_takes_it_in_batches() -> None:
    proposer = load_proposer(EmbedConfig(saliency="background-prior"), torch.device("cpu"))
    assert isinstance(proposer, BackgroundPrior)
    if torch.cuda.is_available():
        on_gpu = load_proposer(EmbedConfig(saliency="background-prior"), torch.device("cuda"))
        assert isinstance(on_gpu, BatchedBackgroundPrior) and on_gpu.batch == 32
