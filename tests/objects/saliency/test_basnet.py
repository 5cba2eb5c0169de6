"""BASNet against the original's names, shapes and output."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import closed_form
from places import REFERENCE

from fastcomus.objects.saliency.basnet import BASNet


@pytest.fixture(scope="module")
def network() -> BASNet:
    """With weights in closed form; in float64, since the reference amplifies the rounding of float32 to 1e-3."""
    return closed_form().fill(BASNet()).double().eval()


def test_names_and_shapes_are_those_of_published_checkpoints() -> None:
    with torch.device("meta"):
        own = {name: list(tensor.shape) for name, tensor in BASNet().state_dict().items()}
    assert own == json.loads((REFERENCE / "basnet_state_dict.json").read_text())


@pytest.mark.slow
def test_maps_equal_the_reference(network: BASNet) -> None:
    reference = np.load(REFERENCE / "basnet_256.npz")
    with torch.inference_mode():
        maps = network(closed_form().image(256, 256).double())
    assert len(maps) == 8 and all(one.shape == (1, 1, 256, 256) for one in maps)
    assert np.abs(maps[0][0, 0].numpy() - reference["main"]).max() < 1e-6
    for name, place in (("side1", 1), ("side6", 6)):
        assert np.abs(maps[place][0, 0].numpy() - reference[name].astype(np.float64)).max() < 5e-4  # float16


def test_other_sizes_work_and_a_map_depends_on_its_image_alone() -> None:
    torch.manual_seed(0)
    network = BASNet().double().eval()
    image = closed_form().image(32, 64).double()
    with torch.inference_mode():
        together, alone = network(torch.cat([image, -image]))[0], network(-image)[0]
    assert together.shape == (2, 1, 32, 64) and torch.allclose(together[1:], alone, atol=1e-9)
