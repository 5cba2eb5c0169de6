"""Training to the same bytes: what stands for CUDA's own operations gives what they give, and a GPU repeats itself."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import BACKBONE
from torch.nn import functional

from fastcomus.backends import choose
from fastcomus.networks import determinism
from fastcomus.networks.determinism import enlarge_by_products, sum_cross_entropy, use_determinism
from fastcomus.segmentation.training import SelfTraining
from fastcomus.settings import get_preset_config


@pytest.mark.parametrize("shape", [((5, 9), (33, 65)), ((1, 3), (1, 17)), ((4, 4), (4, 4))])
def test_enlarging_by_products_is_interpolation(shape: tuple) -> None:
    maps = torch.randn(2, 3, *shape[0], requires_grad=True)
    weights = torch.randn(2, 3, *shape[1])
    expected = functional.interpolate(maps, shape[1], mode="bilinear", align_corners=True)
    found = enlarge_by_products(maps, shape[1])
    assert torch.allclose(found, expected, atol=1e-5)
    gradients = [torch.autograd.grad((one * weights).sum(), maps)[0] for one in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-4)


def test_the_sum_pixel_by_pixel_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(-1, 4, (2, 5, 6))
    expected = sum_cross_entropy(logits, labels, -1)
    monkeypatch.setattr(determinism, "is_determinism_used", lambda _: True)
    assert torch.allclose(sum_cross_entropy(logits, labels, -1), expected)


def test_nothing_changes_on_the_cpu_and_all_is_put_back(caplog: pytest.LogCaptureFixture) -> None:
    with use_determinism(torch.device("cpu"), True):
        assert not torch.are_deterministic_algorithms_enabled()
    assert choose.select("cpu").is_deterministic and choose.select("cpu", True) == choose.select("cpu")

    def warn() -> None:
        with use_determinism(torch.device("cuda"), True):
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            for text in 2 * ["strange_op does not have a deterministic implementation, but you set ..."] + ["another"]:
                warnings.warn(text, stacklevel=1)

    with pytest.warns(UserWarning, match="another") as heard:
        warn()
    assert not torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory
    assert len(heard) == 1 and caplog.text.count("no way to do strange_op") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_to_the_same_bytes() -> None:
    config = replace(get_preset_config("offline").train, **BACKBONE, train_size=65, batch_size=4)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12, 80, 96, 3), np.uint8), rng.integers(0, 4, (12, 80, 96)).astype(np.uint8)
    states = []
    for _ in range(2):
        training = SelfTraining(3, config, 2, 0, choose.select("cuda", True))
        for _ in training.train(lambda index: (images[index], labels[index]), 12, 2):
            pass
        states.append({name: one.cpu() for name, one in training.segmenter.state_dict().items()})
    assert all(torch.equal(one, states[1][name]) for name, one in states[0].items())
