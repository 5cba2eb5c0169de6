"""train-saliency: its losses, its labels, and the whole of it on made photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SALIENCY, Photographs, tree_bytes
from PIL import Image
from skimage.metrics import structural_similarity as scikit_image_similarity

from fastcomus import Run
from fastcomus.backends.cpu import compute_otsu_threshold
from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.objects.saliency.losses import compute_hybrid_loss, compute_structural_similarity
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.objects.saliency.network_map import SaliencyNetwork, save_network
from fastcomus.objects.saliency.training import average_maps, compute_pixel_labels, fuse_maps, split_into_planes

SHORT = {
    **SALIENCY,
    "priors": "background-prior, minimum-barrier",
    "refine_epochs": 1,
    "epochs": 2,
    "size": 65,
    "batch_size": 6,
    "common_features": False,  # tests/objects/saliency/test_common_features.py
}


def test_similarity_equals_scikit_images() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 51, 63))
    _, full = scikit_image_similarity(
        one, other, win_size=11, data_range=1, use_sample_covariance=False, gaussian_weights=False, full=True
    )
    ours = compute_structural_similarity(torch.tensor(one)[None, None], torch.tensor(other)[None, None])
    assert float(ours) == pytest.approx(full[5:-5:4, 5:-5:4].mean(), abs=1e-6)


def test_loss_is_least_for_the_truth() -> None:
    target = torch.zeros(2, 3, 33, 33)
    target[:, :, 8:20, 10:25] = 1
    right, wrong = 20 * (target - 0.5), 20 * (target.roll(6, 3) - 0.5)
    assert (
        compute_hybrid_loss(right, target)
        < 0.01
        < compute_hybrid_loss(wrong, target)
        < compute_hybrid_loss(-right, target)
    )


def test_labels_of_several_maps_keep_apart() -> None:
    maps = np.zeros((3, 128, 128), np.uint8)
    maps[0, :64], maps[1, :, :32], maps[2, 96:, 96:] = 200, 90, 255
    planes = split_into_planes(torch.from_numpy(compute_pixel_labels(maps, (256, 128)))[None], 3)
    assert planes.shape == (1, 3, 256, 128)
    assert planes[0, 0, :120].all() and not planes[0, 0, 136:].any()
    assert planes[0, 1, :, :30].all() and not planes[0, 1, :, 34:].any()
    assert planes[0, 2, 200:, 100:].all() and not planes[0, 2, :180].any()


def test_averages() -> None:
    one, other = np.full((2, 4, 4), 200, np.uint8), np.full((2, 4, 4), 100, np.uint8)
    assert (average_maps(None, one, 0.7) == 200).all() and (average_maps(one, other, 0.75) == 175).all()
    assert fuse_maps(np.stack([one[0], other[0]])).tolist() == [[[150] * 4] * 4]


@pytest.fixture(scope="module")
def trained(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("saliency") / "run", preset="offline", device="cpu")
    run.train_saliency(photographs.images, **{**SHORT, "epochs": 8, "scale_min": 0.5})
    return run


def get_network(run: Run) -> str:
    (network,) = run.folder.path.glob("saliency/network-*.safetensors")
    return str(network)


def test_the_network_finds_planted_objects(trained: Run, photographs: Photographs, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", preset="offline", settings={"embed": {"crop_size": 32}})
    run.embed(photographs.images, saliency=get_network(trained))
    ious = []
    for row in run.objects().to_pylist():
        true = np.asarray(Image.open(photographs.truth / row["image"])) > 0
        ious.append(min(row["area"], true.sum()) / max(row["area"], true.sum()))
    assert len(ious) >= 20 and np.median(ious) > 0.6
    notes = (run.folder.read_state() or {})["notes"]
    assert any("test_efficientnet" in note for note in notes)


def test_maps_are_joined_with_those_of_the_priors(trained: Run, photographs: Photographs) -> None:
    """Weight 1 gives the priors' mean, 0 the network, a half lies between, each stretched to [0, 1]."""
    pixels = np.asarray(Image.open(sorted(photographs.images.iterdir())[0]).convert("RGB"))
    checkpoint = get_network(trained)

    def map_of(weight: float, power: float = 1.0) -> np.ndarray:
        config = EmbedConfig(saliency=checkpoint, prior_weight=weight, map_power=power)
        proposer = load_proposer(config, torch.device("cpu"))
        assert not callable(proposer)
        return proposer.propose(proposer.prepare(pixels)[None])[0][0].numpy()

    alone, joined, mean = map_of(0.0), map_of(0.5), map_of(1.0)
    priors = [load_proposer(EmbedConfig(saliency=name), torch.device("cpu")) for name in SHORT["priors"].split(", ")]
    expected = np.mean([prior("", pixels)[0] for prior in priors if callable(prior)], axis=0)
    small = np.asarray(Image.fromarray(expected.astype(np.float32)).resize(mean.shape[::-1], Image.Resampling.BILINEAR))
    assert np.corrcoef(mean.ravel(), small.ravel())[0, 1] > 0.999
    for one in (alone, joined, mean):
        assert one.min() == 0 and one.max() == 1
    assert np.allclose(map_of(0.5, 2.0), joined**2, atol=1e-6)
    # The network's map before it is stretched is a + b times what `alone` shows.
    terms = np.stack([alone.ravel(), mean.ravel(), np.ones(mean.size)], axis=1)
    weights, residual, *_ = np.linalg.lstsq(terms, joined.ravel(), rcond=None)
    assert residual[0] / mean.size < 1e-4 and (weights[:2] > 0.1).all()


def test_the_map_of_the_network_follows_edges_and_that_of_the_priors_stays(
    trained: Run, photographs: Photographs
) -> None:
    """Each pixel takes the side that its colour is on, so that masks are nearer to the planted ones."""
    files = sorted(photographs.images.iterdir())
    true = [np.asarray(Image.open(photographs.truth / f"{file.stem}.png")) > 0 for file in files]

    def map_all(weight: float, follows: bool) -> list[np.ndarray]:
        config = EmbedConfig(saliency=get_network(trained), prior_weight=weight, map_power=1.0, map_edges=follows)
        proposer = load_proposer(config, torch.device("cpu"))
        assert not callable(proposer)
        given = [proposer.prepare(np.asarray(Image.open(file).convert("RGB"))) for file in files]
        return [one[0].numpy() for one in proposer.propose(torch.stack(given))]

    def score(maps: list[np.ndarray]) -> float:
        ious = []
        for one, mask in zip(maps, true, strict=True):
            whole = np.asarray(Image.fromarray(one).resize(mask.shape[::-1], Image.Resampling.BILINEAR))
            found = whole > compute_otsu_threshold(whole)
            ious.append((found & mask).sum() / (found | mask).sum())
        return float(np.mean(ious))

    alone, following = (map_all(0.0, follows) for follows in (False, True))
    assert score(following) > score(alone) + 0.08
    for one, other in zip(*(map_all(1.0, follows) for follows in (False, True)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_prior_that_is_not_known_is_told(trained: Run, tmp_path: Path) -> None:
    network = SaliencyNetwork("test_efficientnet", 65)
    save_network(network, ["centre-prior"], "", tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="centre-prior"):
        load_proposer(EmbedConfig(saliency=str(tmp_path / "other.safetensors")), torch.device("cpu"))


def test_what_is_up_to_date_is_not_done_again(trained: Run, photographs: Photographs, tmp_path: Path) -> None:
    before = tree_bytes(trained.folder.path)
    copy = trained.train_saliency(photographs.images, tmp_path / "copies" / "own.safetensors")
    network = f"saliency/{Path(get_network(trained)).name}"
    assert copy.read_bytes() == before[network]
    assert tree_bytes(trained.folder.path) == before
    assert set(before) == {"run.json", "saliency/manifest.json", network}


def test_broken_images_are_left_out(photographs: Photographs, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for file in sorted(photographs.images.iterdir())[:6]:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "05a.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    run = Run(tmp_path / "run", preset="offline", device="cpu")
    run.train_saliency(folder, **{**SHORT, "epochs": 1})
    assert (run.folder.read_manifest("saliency") or {})["images"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priors": "background-prior, minimum-barier"}, r"'minimum-barier'; did you mean minimum-barrier"),
        ({"priors": "minimum-barrier, minimum-barrier"}, "name each method once"),
        ({"network": "basnett"}, "basnett"),
        ({"moving_average": 1.0}, r"moving_average must lie in \[0, 1\)"),
    ],
)
def test_wrong_settings_are_one_sentence(
    settings: dict, message: str, photographs: Photographs, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Run(tmp_path / "run", preset="offline").train_saliency(photographs.images, **settings)
    assert not (tmp_path / "run").exists()
