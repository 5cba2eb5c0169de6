"""Every method of --saliency on photographs; checkpoints and names that do not fit."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import TINY, Photographs
from PIL import Image
from places import MSRC14

from fastcomus import Run
from fastcomus.backends.cpu import resize_maps
from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.errors import InputError
from fastcomus.objects.saliency.basnet import BASNet
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.objects.saliency.skeletons import create_saliency_network
from fastcomus.settings import get_preset_config

CPU = torch.device("cpu")
OFFLINE = get_preset_config("offline").embed
needs_photographs = pytest.mark.skipif(not MSRC14.is_dir(), reason="the data set msrc14 is not here")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("FASTCOMUS_WEIGHTS", str(folder))
    return folder


def read_msrc14(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pixels and masks of `count` photographs, evenly drawn from all."""
    names = (MSRC14 / "objects.txt").read_text().split()
    names = names[:: len(names) // count][:count]
    pixels = [np.asarray(Image.open(MSRC14 / "JPEGImages" / f"{name}.jpg").convert("RGB")) for name in names]
    return pixels, [np.asarray(Image.open(MSRC14 / "Saliency" / f"{name}.png")) > 0 for name in names]


def read_pixels(made: Photographs, count: int) -> list[np.ndarray]:
    return [np.asarray(Image.open(file)) for file in sorted(made.images.iterdir())[:count]]


def proposed(config: EmbedConfig, pixels: list[np.ndarray]) -> list[np.ndarray]:
    proposer = load_proposer(config, CPU)
    if callable(proposer):
        return [proposer("", one) for one in pixels]
    found = proposer.propose(torch.stack([proposer.prepare(one) for one in pixels]))
    return [resize_maps(maps.numpy(), one.shape[:2]) for maps, one in zip(found, pixels, strict=True)]


def mean_iou(found: list[np.ndarray], masks: list[np.ndarray]) -> float:
    from fastcomus.backends.choose import select

    ious = []
    for maps, mask in zip(found, masks, strict=True):
        chosen = select("cpu").find_masks(maps, "otsu", 1).masks
        joined = chosen.any(axis=0) if len(chosen) else np.zeros(mask.shape, bool)
        ious.append((joined & mask).sum() / (joined | mask).sum())
    return float(np.mean(ious))


@needs_photographs
@pytest.mark.parametrize(
    ("method", "least"),
    [
        ("background-prior", 0.5),
        ("minimum-barrier", 0.5),
        ("absorbing-markov-chain", 0.45),
        pytest.param("lost", 0.35, marks=pytest.mark.slow),
        ("tokencut", 0.4),
        pytest.param("maskcut", 0.4, marks=pytest.mark.slow),
    ],
)
def test_methods_find_the_objects_of_photographs(method: str, least: float) -> None:
    pixels, masks = read_msrc14(14 if method == "tokencut" else 40)
    found = proposed(replace(OFFLINE, saliency=method, saliency_size=448, saliency_precision="float32"), pixels)
    whole_image = np.mean([mask.mean() for mask in masks])
    assert mean_iou(found, masks) > max(least, whole_image + 0.02)
    most = 3 if method == "maskcut" else 1
    assert all(len(maps) <= most and maps.dtype in (bool, np.float32) for maps in found)


def assert_batches_do_not_matter(config: EmbedConfig, pixels: list[np.ndarray]) -> None:
    proposer = load_proposer(config, CPU)
    assert not callable(proposer)
    prepared = [proposer.prepare(one) for one in pixels]
    together = proposer.propose(torch.stack(prepared))
    for one, maps in zip(prepared, together, strict=True):
        alone = proposer.propose(one[None])[0]
        assert maps.ndim == 3 and len(alone) == len(maps) <= 1
        if maps.dtype == torch.float32 and len(maps):
            assert maps.min() == 0 or config.saliency == "found"
            assert maps.max() <= 1 and (alone - maps).abs().max() < 0.05


@pytest.mark.parametrize("method", ["dinoseg", "found"])
def test_methods_of_vits_run_with_weights(method: str, cache: Path, tmp_path: Path, photographs: Photographs) -> None:
    """With arbitrary weights: what they find means nothing, but it must not depend on the batch."""
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch8_224", num_classes=0).state_dict()
    torch.save(state, tmp_path / "dino.pth")
    torch.save(state, cache / "dino_vits8_300ep.pth")
    torch.save({"decoder.weight": torch.randn(1, 384, 1, 1), "decoder.bias": torch.zeros(1)}, cache / "found.pt")
    config = replace(OFFLINE, saliency=method, saliency_size=64, saliency_precision="float32")
    config = replace(config, encoder="vit_small_patch8_224.dino", encoder_weights=str(tmp_path / "dino.pth"))
    assert_batches_do_not_matter(config, read_pixels(photographs, 3))


def test_found_looks_at_its_own_network_and_may_find_nothing(cache: Path, photographs: Photographs) -> None:
    """Its decoder knows the keys of one network, whatever embeds the crops."""
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_small_patch8_224", num_classes=0).state_dict(), cache / "dino_vits8_300ep.pth")
    config = replace(OFFLINE, saliency="found", saliency_size=64, saliency_precision="float32")
    assert config.encoder == "efficientnet-lite0"
    weight, pixels = torch.randn(1, 384, 1, 1), read_pixels(photographs, 2)
    for bias, objects in ((30.0, 1), (-30.0, 0)):
        decoder = {"decoder.weight": weight / weight.norm(), "decoder.bias": torch.tensor([bias])}
        torch.save(decoder, cache / "found.pt")
        assert [len(maps) for maps in proposed(config, pixels)] == [objects] * 2


@pytest.mark.slow
def test_both_basnets_run_with_weights(cache: Path, photographs: Photographs) -> None:
    torch.manual_seed(0)
    state = BASNet().state_dict()
    torch.save({"net": state}, cache / "basnet-unsupervised.pth")
    torch.save(state, cache / "basnet-supervised.pth")
    config = replace(OFFLINE, saliency_size=64, saliency_precision="float32")
    assert_batches_do_not_matter(replace(config, saliency="basnet-unsupervised"), read_pixels(photographs, 2))
    (maps,) = proposed(replace(config, saliency="basnet-supervised"), read_pixels(photographs, 1))
    assert maps.shape == (1, 80, 96) and maps.min() >= 0 and 0.5 < maps.max() <= 1


@pytest.mark.parametrize(("method", "least"), [("minimum-barrier", 0.6), ("tokencut", 0.4)])
def test_embed_with_another_method_finds_the_planted_objects(
    method: str, least: float, photographs: Photographs, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    run.embed(photographs.images, saliency=method, saliency_size=256)
    rows = run.objects().to_pylist()
    ious = []
    for row in rows:
        true = np.asarray(Image.open(photographs.truth / row["image"])) > 0
        y, x = np.flatnonzero(true.any(axis=1)), np.flatnonzero(true.any(axis=0))
        found, box = np.zeros((2, *true.shape), bool)
        found[row["y0"] : row["y1"], row["x0"] : row["x1"]] = True
        box[y[0] : y[-1] + 1, x[0] : x[-1] + 1] = True
        ious.append((found & box).sum() / (found | box).sum())
    assert len(rows) >= 20 and np.median(ious) > least


def test_maps_are_enlarged_as_their_kind() -> None:
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 1:3, 1:3] = True
    enlarged = resize_maps(mask, (40, 40))
    assert enlarged.dtype == bool and enlarged[0, 12:28, 12:28].all() and not enlarged[0, :6].any()
    assert resize_maps(mask.astype(np.float32), (8, 12)).dtype == np.float32
    assert resize_maps(mask[:0], (5, 6)).shape == (0, 5, 6)


def test_unknown_names_list_near_ones(photographs: Photographs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'token-cut'; did you mean .*tokencut"):
        Run(tmp_path / "run", preset="offline").embed(photographs.images, saliency="token-cut")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_here_say_where_to_get_them(cache: Path) -> None:
    with pytest.raises(InputError, match=r"basnet-unsupervised are not here; fetch .*CC BY-NC 4.0.*put the file at"):
        load_proposer(replace(OFFLINE, saliency="basnet-unsupervised"), CPU)


@pytest.mark.parametrize("prior", SALIENCY_PRIORS)
def test_a_package_that_is_not_here_is_named(prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"fastcomus.objects.saliency.{prior.replace('-', '_')}"
    monkeypatch.setitem(sys.modules, file, None)  # importing it fails, as without the package
    with pytest.raises(InputError, match=rf"saliency {prior} needs numba; run pip install numba\."):
        load_proposer(replace(OFFLINE, saliency=prior), CPU)


def test_what_a_method_cannot_look_through_is_said() -> None:
    with pytest.raises(InputError, match=r"attention of a ViT.*efficientnet-lite0 shows none"):
        load_proposer(replace(OFFLINE, saliency="dinoseg"), CPU)


def test_checkpoints_of_other_networks_are_told_by_their_keys(tmp_path: Path) -> None:
    # One number for all values of a tensor: the file is small.
    state = {
        name: torch.zeros(()).expand(one.shape) for name, one in create_saliency_network("basnet").state_dict().items()
    }
    del state["inconv.weight"], state["inconv.bias"]
    torch.save({**state, "more": torch.zeros(2), "outconv1.bias": torch.zeros(3)}, tmp_path / "other.pth")
    wanted = r"2 missing \(inconv.weight, inconv.bias\); 1 extra \(more\); 1 of another shape \(outconv1.bias\)"
    with pytest.raises(InputError, match=wanted):
        load_proposer(replace(OFFLINE, saliency=str(tmp_path / "other.pth")), CPU)


class Malicious:
    """Unpickling it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.file),)


def test_a_pickle_that_is_no_weights_is_refused_and_not_executed(tmp_path: Path) -> None:
    torch.save({"net": Malicious(tmp_path / "made")}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="no checkpoint that can be read"):
        load_proposer(replace(OFFLINE, saliency=str(tmp_path / "weights.pth")), CPU)
    assert not (tmp_path / "made").exists()
