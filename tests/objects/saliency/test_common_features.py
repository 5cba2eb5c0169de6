"""What objects have in common: the direction, and maps weighed by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.networks import weights
from fastcomus.objects.saliency.common_features import (
    SIDE,
    FeatureGrid,
    compute_likenesses,
    fit_common_features,
    multiply_maps,
)
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.objects.saliency.network_map import NetworkMap, SaliencyNetwork, find_networks_behind, save_network
from fastcomus.objects.saliency.proposer import stretch_maps

CPU = torch.device("cpu")
OBJECT, STRAY = (slice(96, 160), slice(32, 96)), (slice(96, 160), slice(176, 240))  # rows and columns


@pytest.fixture(scope="module")
def grid() -> FeatureGrid:
    return FeatureGrid("efficientnet-lite0", CPU, "float32")


def draw_image(seed: int) -> np.ndarray:
    """Noise on the left and stripes on the right, of colours of their own; and a checkerboard in the noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIDE, SIDE))
    image = rng.integers(0, 40, (SIDE, SIDE, 3)) + rng.integers(60, 160, 3)
    stripes = (columns // 4 % 2 * 60)[..., None] + rng.integers(40, 180, 3)
    image[:, SIDE // 2 :] = stripes[:, SIDE // 2 :]
    board = ((rows // 8 + columns // 8) % 2 * 255)[..., None].repeat(3, 2)
    image[OBJECT] = board[OBJECT]
    return image.clip(0, 255).astype(np.uint8)


def draw_map(seed: int) -> np.ndarray:
    """A prior's map (1, 128, 128) uint8 that takes some stripes, in every third image, for as good an object."""
    wide = np.random.default_rng(seed).integers(0, 30, (SIDE, SIDE))
    wide[OBJECT] = 250
    if seed % 3 == 0:
        wide[STRAY] = 250
    return wide[::2, ::2].astype(np.uint8)[None]


def test_what_one_prior_took_for_an_object_fades(grid: FeatureGrid) -> None:
    common = fit_common_features(grid, draw_image, draw_map, 10, 2, lambda _: None)
    for seed in (0, 3, 57):  # the last one taught nothing
        images = torch.from_numpy(draw_image(seed)).permute(2, 0, 1)[None]
        weighed = common.weigh(images, [torch.from_numpy(draw_map(seed))[None] / 255])[0][0, 0]
        half = [tuple(slice(part.start // 2, part.stop // 2) for part in place) for place in (OBJECT, STRAY)]
        kept, stray = (float(weighed[place].mean()) for place in half)
        assert weighed.min() == 0 and weighed.max() == 1
        assert kept > 0.7 and stray < 0.5 * kept, (seed, kept, stray)


def test_the_direction_is_that_of_the_largest_covariance(grid: FeatureGrid) -> None:
    seen: list[int] = []
    common = fit_common_features(grid, draw_image, draw_map, 11, 2, seen.append)
    assert sum(seen) == 11 and common.direction.shape == (grid.channels,)

    images = torch.stack([torch.from_numpy(draw_image(seed)).permute(2, 0, 1) for seed in range(11)])
    features = grid.compute(images).numpy().astype(np.float64)
    assert features.shape == (11, SIDE // 16, SIDE // 16, grid.channels)
    maps = np.stack([draw_map(seed)[0] for seed in range(11)]).astype(np.float64)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    small = ((maps - low) / (high - low)).reshape(11, 16, 8, 16, 8).mean((2, 4))
    small -= small.mean((1, 2), keepdims=True)
    spread = features.reshape(-1, grid.channels).std(0)
    # The weights of standardised features are their covariances, so those of features are these by the spread again.
    expected = np.einsum("nhw,nhwc->c", small, features / spread) / spread
    expected /= np.linalg.norm(expected)
    assert np.abs(common.direction.numpy() - expected).max() < 1e-4

    likenesses = compute_likenesses(common, draw_image, 11, 2, seen.append)
    assert sum(seen) == 22
    assert np.allclose(likenesses.numpy(), features @ expected, atol=1e-2 * np.abs(features @ expected).max())

    order = np.random.default_rng(0).permutation(11)
    again = fit_common_features(grid, lambda i: draw_image(order[i]), lambda i: draw_map(order[i]), 11, 2, seen.append)
    assert torch.allclose(again.direction, common.direction, atol=1e-4)


@given(st.integers(0, 999), st.sampled_from([0.0, 1.0, -3.0]), st.sampled_from([1.0, 50.0]))
def test_weighed_maps_are_stretched_and_flat_ones_change_nothing(seed: int, level: float, scale: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    maps, likeness = torch.rand(2, 1, 20, 24, generator=rng), torch.randn(2, 5, 6, generator=rng)
    weighed = multiply_maps(maps, scale * likeness + level)
    assert weighed.shape == maps.shape and torch.allclose(weighed, multiply_maps(maps, likeness), atol=1e-5)
    assert (weighed.amin((2, 3)) == 0).all() and (weighed.amax((2, 3)) == 1).all()

    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    assert torch.allclose(multiply_maps(maps, torch.full_like(likeness, level)), (maps - low) / (high - low), atol=1e-5)
    assert (multiply_maps(torch.full_like(maps, abs(level)), likeness) == 0).all()


def test_maps_of_nothing_give_no_direction(grid: FeatureGrid) -> None:
    common = fit_common_features(grid, draw_image, lambda _: np.zeros((1, 128, 128), np.uint8), 3, 1, lambda _: None)
    assert (common.direction == 0).all()
    maps = torch.rand(1, 1, 32, 32)
    images = torch.from_numpy(draw_image(0)).permute(2, 0, 1)[None]
    low, high = maps.min(), maps.max()
    assert torch.allclose(common.weigh(images, [maps])[0], (maps - low) / (high - low), atol=1e-5)


def test_the_maps_of_network_and_priors_are_weighed_alike(grid: FeatureGrid, tmp_path: Path) -> None:
    common = fit_common_features(grid, draw_image, draw_map, 10, 2, lambda _: None)
    torch.manual_seed(0)
    file = tmp_path / "own.safetensors"
    save_network(SaliencyNetwork("efficientnet-lite0", SIDE), ["background-prior"], "", file, common)
    for weight in (0.0, 0.3, 1.0):
        config = EmbedConfig(saliency=str(file), prior_weight=weight, map_power=1.0, saliency_precision="float32")
        proposer = load_proposer(config, CPU)
        assert isinstance(proposer, NetworkMap)
        given = proposer.prepare(draw_image(3))[None]
        (of_network,) = common.weigh(given[:, :3], [proposer.run(given[:, :3])])
        expected = of_network
        if weight:
            (of_priors,) = common.weigh(given[:, :3], [given[:, 3:].float() / 255])
            expected = (1 - weight) * of_network + weight * of_priors
        assert torch.allclose(proposer.propose(given)[0], stretch_maps(expected)[0], atol=1e-5)
    assert not torch.allclose(of_network, of_priors, atol=0.1)


def test_files_are_read_back_or_refused(grid: FeatureGrid, tmp_path: Path) -> None:
    common = fit_common_features(grid, draw_image, draw_map, 3, 1, lambda _: None)
    file = tmp_path / "common.safetensors"
    save_network(None, ["background-prior"], "", file, common)
    proposer = load_proposer(EmbedConfig(saliency=str(file), map_power=1.0, saliency_precision="float32"), CPU)
    assert not callable(proposer) and find_networks_behind(str(file)) == {"efficientnet-lite0"}
    image = draw_image(1)
    given = proposer.prepare(image)[None]
    (found,) = proposer.propose(given)
    expected = common.weigh(given[:, :3], [given[:, 3:].float() / 255])[0][0]
    assert torch.allclose(found, expected, atol=1e-5)

    save_network(None, ["background-prior"], "", file)
    with pytest.raises(InputError, match="does not say which saliency network"):
        load_proposer(EmbedConfig(saliency=str(file)), CPU)
    common.direction = common.direction[:5]
    save_network(SaliencyNetwork("efficientnet-lite0", 65), ["background-prior"], "", file, common)
    with pytest.raises(InputError, match="lacks the direction"):
        load_proposer(EmbedConfig(saliency=str(file)), CPU)


def test_a_backbone_without_such_a_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        weights, "load", lambda name, **_: weights.create_network(name, features_only=True, out_indices=(1,))
    )
    with pytest.raises(InputError, match="no layer with a feature for 16 pixels"):
        FeatureGrid("efficientnet-lite0", CPU, "float32")
