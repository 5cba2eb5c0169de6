"""The priors in batches against those on single images, by the code that runs on a GPU."""

from __future__ import annotations

import os
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.sparse.csgraph import floyd_warshall
from skimage import data

from fastcomus.backends.cpu import compute_otsu_threshold, resize_maps
from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.objects.saliency import batched_barrier, minimum_barrier
from fastcomus.objects.saliency.batched_prior import BatchedPriors, _find_shortest_paths
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.objects.saliency.network_map import NetworkMap, SaliencyNetwork

DEVICE = torch.device(os.environ.get("FASTCOMUS_TEST_DEVICE", "cpu"))
PICTURES = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]


def plant_object(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy disc of one colour on a noisy ground of another, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = (y - height * 0.55) ** 2 + (x - width * 0.45) ** 2 < (0.25 * min(height, width)) ** 2
    colours = np.array([[60, 110, 70], [190, 80, 60]])[mask.astype(int)]
    return (colours + rng.normal(0, 8, colours.shape)).clip(0, 255).astype(np.uint8), mask


def find_map(pixels: np.ndarray, name: str = "background-prior") -> np.ndarray:
    prior = BatchedPriors(DEVICE, (name,))
    return prior.propose(prior.prepare(pixels)[None])[0].cpu().numpy()


@pytest.mark.parametrize("name", SALIENCY_PRIORS)
def test_planted_objects_are_found(name: str) -> None:
    for number, (height, width) in enumerate([(200, 300), (330, 180), (60, 500)]):
        pixels, mask = plant_object(height, width, number)
        saliency = resize_maps(find_map(pixels, name), mask.shape)[0]
        found = saliency > compute_otsu_threshold(saliency)
        assert (found & mask).sum() / (found | mask).sum() > 0.8


@pytest.mark.parametrize("name", SALIENCY_PRIORS)
def test_maps_are_like_those_of_the_prior_on_single_images(name: str) -> None:
    single = load_proposer(EmbedConfig(saliency=name), torch.device("cpu"))
    assert callable(single)
    for pixels in PICTURES if name == SALIENCY_PRIORS[0] else PICTURES[::2]:
        ours, theirs = resize_maps(find_map(pixels, name), pixels.shape[:2])[0], single("", pixels)[0]
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.8
        assert ours.min() < 0.02 and ours.max() > 0.98


def test_barriers_and_reconstructions_are_those_of_single_images() -> None:
    """On noise, where many paths are tried: barriers are a little higher than after many raster passes."""
    rng = np.random.default_rng(0)
    values = ndimage.gaussian_filter(rng.random((3, 40, 40)), (0, 2, 2)).astype(np.float32)
    found = batched_barrier._compute_barriers(torch.from_numpy(values)[None])[0].numpy()
    for one, value in zip(found, values, strict=True):
        lowest = minimum_barrier._compute_barrier_distance(value, 20)
        assert one.mean() < 1.3 * lowest.mean() and (one[0] == 0).all() and (one[:, -1] == 0).all()
    ceiling, marker = values[0], values[0] * (rng.random((40, 40)) < 0.02).astype(np.float32)
    flooded = batched_barrier._reconstruct(*(torch.from_numpy(one)[None, None] for one in (marker, ceiling)))
    assert np.allclose(flooded[0, 0], minimum_barrier._reconstruct(marker, ceiling))
    for width in (4, 5):
        image = torch.from_numpy(values[:1])[None]
        dilated = batched_barrier._enlarge_spots(image, width, (width - 1) // 2)[0, 0]
        eroded = -batched_barrier._enlarge_spots(-image, width, width // 2)[0, 0]
        assert np.allclose(dilated, ndimage.grey_dilation(values[0], (width, width), mode="nearest"))
        assert np.allclose(eroded, ndimage.grey_erosion(values[0], (width, width), mode="nearest"))


def test_a_network_is_joined_with_its_priors_on_the_device() -> None:
    """As on the CPU with the priors of single images, but for how these differ; nothing is asked of the host."""
    torch.manual_seed(0)
    network = SaliencyNetwork("test_efficientnet", 65)
    pixels = plant_object(200, 300, 0)[0]
    single = [load_proposer(EmbedConfig(saliency=name), torch.device("cpu")) for name in SALIENCY_PRIORS]
    maps = []
    for priors in (BatchedPriors(torch.device("cpu"), SALIENCY_PRIORS), single):
        joined = NetworkMap(network, "float32", priors, 0.5)
        assert joined.needs_host_pixels is (priors is single)
        maps.append(joined.propose(torch.stack([joined.prepare(pixels)] * 2)))
    assert torch.equal(*maps[0]) and maps[0][0].shape == maps[1][0].shape
    assert np.corrcoef(maps[0][0].flatten(), maps[1][0].flatten())[0, 1] > 0.9
    alone = NetworkMap(network, "float32", BatchedPriors(torch.device("cpu"), SALIENCY_PRIORS), 0.0)
    assert alone.batched is None


def test_a_map_depends_on_its_image_alone() -> None:
    prior = BatchedPriors(DEVICE, SALIENCY_PRIORS)
    prepared = torch.stack([prior.prepare(pixels) for pixels in PICTURES[:2]])
    together = prior.propose(prepared)
    for number, one in enumerate(together):
        assert one.shape == (1, *prepared.shape[2:]) and one.dtype == torch.float32
        assert torch.allclose(one, prior.propose(prepared[number : number + 1])[0], atol=1e-5)


def test_one_colour_has_no_object() -> None:
    for name, colour in product(SALIENCY_PRIORS, (0, 127, 255)):
        assert not find_map(np.full((50, 70, 3), colour, np.uint8), name).any()


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
    assert callable(load_proposer(EmbedConfig(saliency="background-prior"), torch.device("cpu")))
    if torch.cuda.is_available():
        for name in (*SALIENCY_PRIORS, "three-priors"):
            on_gpu = load_proposer(EmbedConfig(saliency=name), torch.device("cuda"))
            assert isinstance(on_gpu, BatchedPriors) and on_gpu.batch == 32
