"""Pixels on a device that is simulated (`other_device`): nothing of the host is mixed in, and results are the CPU's."""

from __future__ import annotations

import numpy as np
import torch
from other_device import OTHER, simulate_device
from skimage import data

from fastcomus.backends.interface import LabelledMasks
from fastcomus.backends.torch_backend import TorchBackend
from fastcomus.objects.saliency.batched_prior import BatchedPriors

PRIORS = "background-prior", "absorbing-markov-chain"  # the third takes thousands of small steps
HERE, THERE = TorchBackend(torch.device("cpu")), TorchBackend(OTHER)


def test_objects_class_maps_and_counts_are_those_of_the_host() -> None:
    pictures = [data.chelsea()[:80, :90], data.coffee()[:70, :60]]
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij"))
    maps = [np.clip(1 - np.linalg.norm(grid - shift, axis=0), 0, 1).astype(np.float32)[None] for shift in (0.1, -0.2)]
    masks = LabelledMasks(list(np.random.default_rng(0).random((2, 40, 30)) < 0.4), [3, 1], (40, 30))
    with simulate_device() as moved:
        found = THERE.find_objects(pictures, maps, "otsu", 20, 16)
        crops = [one.crops.cpu() for one in found]
        [class_map] = THERE.assemble_masks([masks])
        counts = THERE.count_confusion(class_map, class_map.astype(np.uint8), 9)
    for one, its_crops, other in zip(found, crops, HERE.find_objects(pictures, maps, "otsu", 20, 16), strict=True):
        assert (one.boxes == other.boxes).all() and one.run_lengths == other.run_lengths
        assert torch.equal(its_crops, other.crops)
    assert (class_map == HERE.assemble_masks([masks])[0]).all()
    assert (counts == HERE.count_confusion(class_map, class_map.astype(np.uint8), 9)).all()
    assert (80, 90) not in moved.down  # masks come down as the places where they change


def test_priors_in_batches_are_those_of_the_host() -> None:
    picture = data.coffee()[:200, :200]
    expected = BatchedPriors(torch.device("cpu"), PRIORS)
    with simulate_device() as moved:
        priors = BatchedPriors(OTHER, PRIORS)
        [found] = priors.propose(priors.prepare(picture)[None])
        there = found.cpu()
    assert torch.allclose(there, expected.propose(expected.prepare(picture)[None])[0], atol=1e-4)
    assert [shape for shape in moved.up if len(shape) > 2] == [(1, 3, *there.shape[-2:])]
