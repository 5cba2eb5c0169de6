"""DINOSeg, LOST, TokenCut, MaskCut and FOUND against reference values, SciPy, plain loops and planted objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from places import REFERENCE
from scipy import ndimage
from scipy.linalg import eigh
from torch.nn import functional

from fastcomus.errors import InputError
from fastcomus.objects.saliency import second_eigenvectors
from fastcomus.objects.saliency.affinity import Affinity, TwoValuedAffinity
from fastcomus.objects.saliency.attention_mass import compute_attention_masks
from fastcomus.objects.saliency.found import compute_found_map, find_background
from fastcomus.objects.saliency.lost import compute_bounding_boxes, find_component_holding, run_lost
from fastcomus.objects.saliency.normalized_cut import run_mask_cut, run_token_cut
from fastcomus.objects.saliency.second_eigenvectors import compute_second_eigenvectors

OBJECT_DISCOVERY = REFERENCE / "object_discovery.npz"
SCENES = ("one", "two", "three")
PATCH_PX = 8


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return dict(np.load(OBJECT_DISCOVERY))


def reference_features(reference: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack([reference[f"{scene}_features"] for scene in SCENES]))


DISCS = ((8, 8, 5), (22, 9, 4), (14, 23, 3))  # y, x, radius


def planted(objects: int, noise: float = 0.5, seed: int = 0) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Features (1, 30, 32, 64): discs of a direction each, on a background of another; the discs."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:30, :32]
    directions = np.linalg.qr(random.normal(size=(64, 4)))[0].T * 8
    features = np.broadcast_to(directions[3], (30, 32, 64)).copy()
    discs = [(y - at[0]) ** 2 + (x - at[1]) ** 2 < at[2] ** 2 for at in DISCS[:objects]]
    for disc, direction in zip(discs, directions, strict=False):
        features[disc] = direction - 0.3 * directions[3]  # an object is unlike the background, not just other
    features += noise * random.normal(size=features.shape)
    return torch.from_numpy(features.astype(np.float32))[None], discs


def smooth_fields(images: int, side: int, correlation: float, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=(images, side, side + 3, 32))
    smooth = ndimage.gaussian_filter(noise, (0, correlation, correlation, 0))
    return torch.from_numpy((smooth / smooth.std()).astype(np.float32))


def test_lost_is_the_originals(reference: dict[str, np.ndarray]) -> None:
    features = reference_features(reference)
    found = run_lost(features)
    for index, scene in enumerate(SCENES):
        np.testing.assert_array_equal(found.boxes[index] * PATCH_PX, reference[f"{scene}_lost_box"])
        # Which of the patches of the same degree comes first is left to the original's sorting.
        rows = features[index].flatten(0, 1)
        degrees = (rows @ rows.T > 0).sum(dim=1)
        assert degrees[found.seeds[index]] == degrees[int(reference[f"{scene}_lost_seed"])]


def test_token_cut_is_the_originals(reference: dict[str, np.ndarray]) -> None:
    features = reference_features(reference)
    found = run_token_cut(features)
    for index, scene in enumerate(SCENES):
        np.testing.assert_array_equal(found.boxes[index] * PATCH_PX, reference[f"{scene}_tokencut_box"])
        expected = reference[f"{scene}_tokencut_eigvec"]
        if expected.shape != found.eigenvectors[index].shape:  # the file may hold NaN in their place
            expected = scipy_second(affinities(features[index : index + 1], 0.2)[0]).reshape(features.shape[1:3])
        vector = found.eigenvectors[index].numpy()
        np.testing.assert_allclose(vector, expected * np.sign((vector * expected).sum()), atol=1e-3)


def test_mask_cut_is_the_originals(reference: dict[str, np.ndarray]) -> None:
    found = run_mask_cut(reference_features(reference))
    for index, scene in enumerate(SCENES):
        np.testing.assert_array_equal(found[index], reference[f"{scene}_maskcut"] > 0)


def affinities(features: torch.Tensor, tau: float) -> np.ndarray:
    rows = functional.normalize(features.flatten(1, 2), dim=2)
    return np.where((rows @ rows.mT).numpy() > tau, 1.0, 1e-5)


def scipy_second(affinity: np.ndarray) -> np.ndarray:
    degrees = np.diag(affinity.sum(axis=1))
    return np.asarray(eigh(degrees - affinity, degrees, subset_by_index=[1, 2])[1][:, 0])


def blocks(*sizes: int, alone: int = 0) -> np.ndarray:
    """W of parts that only weak edges join, and of patches `alone` that are like themselves only."""
    labels = np.repeat(np.arange(len(sizes) + alone), [*sizes, *[1] * alone])
    labels = np.random.default_rng(0).permutation(labels)
    return np.where(labels[:, None] == labels, 1.0, 1e-5)


def with_zero_rows(features: torch.Tensor) -> torch.Tensor:
    zeroed = features.clone()
    zeroed[:, 2:5, 3:9] = 0
    return zeroed


MATRICES = {
    "smooth": affinities(smooth_fields(3, 14, 2.0), 0.2),
    "very smooth": affinities(smooth_fields(3, 14, 5.0), 0.2),
    "noise": affinities(smooth_fields(3, 14, 0.01), 0.2),
    "zero rows": affinities(with_zero_rows(smooth_fields(3, 14, 2.0)), 0.2),
    "planted": np.concatenate([affinities(planted(n)[0], 0.2) for n in (1, 2, 3)]),
    "two parts": blocks(150, 60)[None],
    "parts of nearly the same size": blocks(200, 61, 60, 59)[None],
    "patches alone": blocks(200, 40, alone=5)[None],
    "up to the dense solver": affinities(smooth_fields(3, 6, 2.0), 0.2),
}


@pytest.mark.parametrize("name", MATRICES)
def test_second_eigenvectors_are_scipys(name: str) -> None:
    vectors = compute_second_eigenvectors(Affinity(torch.from_numpy(MATRICES[name]))).numpy()
    for affinity, vector in zip(MATRICES[name], vectors, strict=True):
        expected = scipy_second(affinity)
        expected *= np.sign(expected @ vector)
        np.testing.assert_allclose(vector, expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(vector > vector.mean(), expected > expected.mean())
        assert vector @ (affinity.sum(axis=1) * vector) == pytest.approx(1.0)


def test_what_does_not_converge_is_solved_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    affinity = Affinity(torch.from_numpy(np.concatenate([MATRICES["noise"], MATRICES["very smooth"]])))
    expected = compute_second_eigenvectors(affinity)
    monkeypatch.setattr(second_eigenvectors, "_STEPS", 6)
    found = compute_second_eigenvectors(affinity)
    signs = (found * expected).sum(dim=1, keepdim=True).sign()
    torch.testing.assert_close(found * signs, expected, atol=1e-7, rtol=0)


def test_affinities_of_two_values_are_those_written_out() -> None:
    similar = torch.rand(3, 70, 70, generator=torch.Generator().manual_seed(0)) < 0.3
    similar |= similar.mT.clone()
    vectors = torch.randn(3, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    short, full = TwoValuedAffinity(similar), Affinity(torch.where(similar, 1.0, 1e-5).double())
    torch.testing.assert_close(short.degrees, full.degrees, rtol=1e-6, atol=0)
    torch.testing.assert_close(short.multiply(vectors), full.multiply(vectors), rtol=1e-6, atol=1e-6)
    chosen = torch.tensor([True, False, True])
    torch.testing.assert_close(short.to_dense(chosen), full.to_dense(chosen), rtol=1e-6, atol=0)


@pytest.mark.parametrize("correlation", [0.01, 1.5, 4.0])
def test_token_cut_of_a_batch_is_the_papers_of_each_image(correlation: float) -> None:
    features = smooth_fields(7, 18, correlation)
    found = run_token_cut(features)
    for index in range(len(features)):
        vector = scipy_second(affinities(features[index : index + 1], 0.2)[0])
        object_side = vector > vector.mean()
        peak = np.abs(vector).argmax()
        if not object_side[peak]:
            vector, object_side = -vector, ~object_side
        labels = ndimage.label(object_side.reshape(18, 21))[0]
        mask = labels == labels.flat[peak]
        y, x = np.nonzero(mask)
        np.testing.assert_allclose(found.eigenvectors[index].flatten(), vector, atol=1e-5)
        np.testing.assert_array_equal(found.bipartitions[index].flatten(), object_side)
        np.testing.assert_array_equal(found.masks[index], mask)
        assert found.boxes[index].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    features = torch.cat([smooth_fields(4, 30, 2.0)[:, :, :32].repeat(1, 1, 1, 2), planted(2)[0], planted(3)[0]])
    together, masks, seeds = run_token_cut(features), run_mask_cut(features), run_lost(features)
    for index in range(len(features)):
        alone = features[index : index + 1]
        torch.testing.assert_close(together.eigenvectors[index], run_token_cut(alone).eigenvectors[0])
        assert torch.equal(together.masks[index], run_token_cut(alone).masks[0])
        assert torch.equal(masks[index], run_mask_cut(alone)[0])
        assert torch.equal(seeds.masks[index], run_lost(alone).masks[0])


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_planted_objects_are_found(objects: int) -> None:
    features, discs = planted(objects)
    for mask in (run_lost(features).masks[0], run_token_cut(features).masks[0]):
        assert any(np.array_equal(mask, disc) for disc in discs)
    masks = run_mask_cut(features, most_objects=4)[0].numpy()
    assert masks.shape == (4, 30, 32)
    large = [disc for disc in discs if disc.sum() > 0.01 * disc.size]
    found = [mask for mask in masks if mask.any()]
    assert all(any(np.array_equal(mask, disc) for mask in found) for disc in large)
    assert (masks.sum(axis=0) <= 1).all()
    assert not masks[len(found) :].any()


def test_lost_is_that_of_plain_loops() -> None:
    features = smooth_fields(5, 12, 2.0, seed=3)
    found = run_lost(features, most_similar=20)
    for index in range(5):
        rows = features[index].flatten(0, 1).numpy()
        products = rows @ rows.T
        count = len(rows)
        degrees = [sum(products[i, j] > 0 for j in range(count) if j != i) for i in range(count)]
        order = sorted(range(count), key=lambda i: degrees[i])
        similar = [i for i in order[:20] if products[order[0], i] > 0]
        labels = ndimage.label((products[similar].sum(axis=0) > 0).reshape(12, 15))[0]
        assert found.seeds[index] == order[0]
        np.testing.assert_array_equal(found.masks[index], labels == labels.flat[order[0]])


@settings(max_examples=50)
@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.integers(0, 99))
def test_components_and_boxes_are_those_of_each_image(
    images: int, height: int, width: int, density: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    masks = random.random((images, height, width)) < density
    seeds = random.integers(0, height * width, images)
    components = find_component_holding(torch.from_numpy(masks), torch.from_numpy(seeds))
    boxes = compute_bounding_boxes(components)
    assert components.shape == masks.shape and boxes.shape == (images, 4)
    for index in range(images):
        labels = ndimage.label(masks[index])[0]
        label = labels.flat[seeds[index]]
        np.testing.assert_array_equal(components[index], (labels == label) & (label > 0))
        y, x = np.nonzero(components[index].numpy())
        expected = [x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0]
        assert boxes[index].tolist() == expected


DEGENERATE = {
    "all equal": torch.ones(2, 9, 9, 8),
    "all equal, arbitrary": torch.randn(8, generator=torch.Generator().manual_seed(0)).expand(2, 10, 9, 8),
    "all zero": torch.zeros(2, 9, 9, 8),
    "one patch": torch.ones(3, 1, 1, 8),
    "a row of equals": torch.ones(1, 1, 70, 8),
    "each like itself alone": torch.eye(81).reshape(1, 9, 9, 81),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_where_nothing_stands_out_there_is_no_object(name: str) -> None:
    features = DEGENERATE[name]
    cut = run_token_cut(features)
    assert not cut.masks.any() and not cut.bipartitions.any() and not cut.boxes.any() and not cut.eigenvectors.any()
    assert not run_mask_cut(features).any()
    if name != "each like itself alone":  # there LOST's object is its seed
        assert not run_lost(features).masks.any() and not run_lost(features).boxes.any()


def test_patches_of_zeros_are_not_lost_objects() -> None:
    features, discs = planted(1)
    features[:, -2:] = 0
    found = run_lost(features)
    np.testing.assert_array_equal(found.masks[0], discs[0])


def test_a_batch_of_no_images() -> None:
    features = torch.zeros(0, 5, 6, 8)
    cut = run_token_cut(features)
    assert cut.eigenvectors.shape == cut.masks.shape == cut.bipartitions.shape == (0, 5, 6)
    assert cut.boxes.shape == (0, 4)
    assert run_mask_cut(features, most_objects=2).shape == (0, 2, 5, 6)
    assert run_lost(features).seeds.shape == (0,) and run_lost(features).masks.shape == (0, 5, 6)
    assert compute_attention_masks(torch.zeros(0, 2, 5, 6)).shape == (0, 5, 6)
    assert compute_found_map(features, torch.ones(1, 8, 1, 1), torch.ones(1)).shape == (0, 5, 6)
    assert find_background(features, torch.zeros(0, 2, 5, 6)).shape == (0, 5, 6)


@settings(max_examples=60)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_any_features_give_finite_consistent_results(
    images: int, height: int, width: int, kinds: int, seed: int
) -> None:
    """Few kinds of patches, one of them zeros: every degree of equality among patches comes up."""
    random = np.random.default_rng(seed)
    palette = random.normal(size=(kinds, 6)).astype(np.float32)
    palette[0] = 0
    features = torch.from_numpy(palette[random.integers(0, kinds, (images, height, width))])
    cut, masks, one = run_token_cut(features), run_mask_cut(features), run_lost(features)
    assert cut.eigenvectors.isfinite().all()
    assert not (cut.masks & ~cut.bipartitions).any()
    assert (masks.sum(dim=1) <= 1).all()
    assert torch.equal(cut.boxes, compute_bounding_boxes(cut.masks)) and torch.equal(
        one.boxes, compute_bounding_boxes(one.masks)
    )
    for index in range(images):
        if one.masks[index].any():
            assert one.masks[index].flatten()[one.seeds[index]]
        assert ndimage.label(one.masks[index].numpy())[1] <= 1 and ndimage.label(cut.masks[index].numpy())[1] <= 1


def test_attention_masks_hold_the_mass_with_the_fewest_patches() -> None:
    attention = torch.rand(4, 3, 7, 9, generator=torch.Generator().manual_seed(1)) ** 4
    masks = compute_attention_masks(attention, 0.7)
    heads = attention / attention.sum(dim=(2, 3), keepdim=True)
    for patches, mask in zip(heads.mean(dim=1), masks, strict=True):
        held = patches[mask].sum()
        assert held >= 0.7 and held - patches[mask].min() < 0.7
        assert patches[mask].min() > patches[~mask].max()


def test_a_head_counts_by_its_share_and_mass_is_reached_exactly() -> None:
    strong = torch.tensor([[600.0, 200.0], [200.0, 0.0]])
    weak = torch.tensor([[0.6, 0.2], [0.2, 0.0]]).flip(0, 1)
    assert compute_attention_masks(strong[None, None])[0].tolist() == [[True, False], [False, False]]
    both = compute_attention_masks(torch.stack([strong, weak])[None], 0.5)  # mean: 0.3 0.2 0.2 0.3
    assert both[0].tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("attention", [torch.zeros(2, 3, 4, 5), torch.ones(2, 3, 4, 5), torch.ones(1, 1, 1, 1)])
def test_uniform_attention_gives_no_object(attention: torch.Tensor) -> None:
    assert not compute_attention_masks(attention).any()


def test_found_map_is_the_convolution() -> None:
    features = smooth_fields(2, 9, 1.0)
    weight, bias = torch.randn(1, 32, 1, 1, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3])
    expected = functional.conv2d(features.permute(0, 3, 1, 2), weight, bias).sigmoid()[:, 0]
    found = compute_found_map(features, weight, bias)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert ((found >= 0) & (found <= 1)).all()


def test_found_background_is_what_is_like_the_least_attended_patch() -> None:
    features, discs = planted(2)
    objects = torch.from_numpy(discs[0] | discs[1])
    generator = torch.Generator().manual_seed(0)
    attention = (objects + 0.1 * torch.rand(30, 32, generator=generator)) * torch.tensor([1.0, 0.5])[:, None, None]
    np.testing.assert_array_equal(find_background(features, attention[None])[0], ~objects)


def test_unusable_input_is_said_in_a_sentence() -> None:
    features = torch.zeros(1, 2, 2, 4)
    with pytest.raises(InputError, match=r"features must be \(B, H, W, C\); got \(2, 2, 4\)"):
        run_token_cut(features[0])
    with pytest.raises(InputError, match="tau must lie in"):
        run_mask_cut(features, tau=1.0)
    with pytest.raises(InputError, match="most_objects must be at least 1; got 0"):
        run_mask_cut(features, most_objects=0)
    with pytest.raises(InputError, match="most_similar must be at least 1; got 0"):
        run_lost(features, most_similar=0)
    with pytest.raises(InputError, match="mass must lie in"):
        compute_attention_masks(torch.ones(1, 1, 2, 2), 1.5)
    with pytest.raises(InputError, match="attention must be"):
        compute_attention_masks(torch.ones(1, 2, 2))
    with pytest.raises(InputError, match=r"weight must be \(1, 4, 1, 1\)"):
        compute_found_map(features, torch.ones(1, 3, 1, 1), torch.ones(1))
    with pytest.raises(InputError, match="attention must be"):
        find_background(features, torch.ones(1, 3, 2, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same() -> None:
    features = torch.cat([smooth_fields(4, 30, 2.0)[:, :, :32].repeat(1, 1, 1, 2), planted(2)[0], planted(3)[0]])
    here, there = run_token_cut(features), run_token_cut(features.cuda())
    torch.testing.assert_close(there.eigenvectors.cpu(), here.eigenvectors, atol=1e-4, rtol=0)
    assert torch.equal(there.masks.cpu(), here.masks)
    assert torch.equal(run_mask_cut(features.cuda()).cpu(), run_mask_cut(features))
    assert torch.equal(run_lost(features.cuda()).boxes.cpu(), run_lost(features).boxes)
