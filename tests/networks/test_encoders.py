"""Encoders against DINO's reference values, timm's own forward, photographs; loading of weights."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from conftest import closed_form
from PIL import Image
from places import MSRC14, REFERENCE
from safetensors.torch import save_file
from torch.nn import functional

from fastcomus.errors import InputError
from fastcomus.networks.encoders import Encoder, load_encoder, load_patch_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module", name="closed_form")
def closed_form_module() -> ModuleType:
    return closed_form()


@pytest.fixture(scope="module")
def lite0() -> Encoder:
    return load_encoder("efficientnet-lite0", "", 96, "float32", CPU)


def crops_of(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures, (count, 3, size, size) uint8."""
    noise = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (functional.interpolate(noise, (size, size), mode="bicubic") * 255).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def dino_files(closed_form: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """DINO's ViT-S/8 and ViT-S/16 filled in closed form, saved as downloaded checkpoints would be."""
    folder, files = tmp_path_factory.mktemp("dino"), {}
    for patch, ending in ((8, ".pth"), (16, ".safetensors")):
        network = closed_form.fill(timm.create_model(f"vit_small_patch{patch}_224", num_classes=0))
        files[patch] = str(folder / f"dino{patch}{ending}")
        (save_file if ending == ".safetensors" else torch.save)(network.state_dict(), files[patch])
    return files


@pytest.mark.parametrize(("patch", "size", "tolerance"), [(16, 224, 1e-5), (16, 256, 1e-3)])
def test_dino_gives_the_reference_values(
    patch: int, size: int, tolerance: float, closed_form: ModuleType, dino_files: dict[int, str]
) -> None:
    reference = np.load(REFERENCE / f"dino_vits{patch}.npz")
    encoder = load_encoder(f"vit_small_patch{patch}_224.dino", dino_files[patch], size, "float32", CPU)
    rows = encoder.embed_normalised(closed_form.image(size, size)).numpy()
    assert encoder.has_class_token and rows.shape == (1, 384)
    assert np.abs(rows[0] - reference[f"cls_{size}x{size}"]).max() < tolerance


SIZES = ((224, 224, 1e-5), (256, 256, 1e-3), (240, 336, 1e-3))


@pytest.mark.parametrize(("patch", "sizes"), [(8, SIZES[2:]), (16, SIZES)])
def test_patches_and_attention_equal_the_reference_at_any_size(
    patch: int, sizes: tuple[tuple[int, int, float], ...], closed_form: ModuleType, dino_files: dict[int, str]
) -> None:
    encoder = load_patch_encoder(f"vit_small_patch{patch}_224.dino", dino_files[patch], "float32", CPU)
    reference = np.load(REFERENCE / f"dino_vits{patch}.npz")
    for height, width, tolerance in sizes:
        found = encoder.encode_normalised(closed_form.image(height, width))
        grid = (height // patch, width // patch)
        assert found.patches.shape == found.keys.shape == (1, *grid, 384) and found.attention.shape == (1, 6, *grid)
        assert np.abs(found.cls[0].numpy() - reference[f"cls_{height}x{width}"]).max() < tolerance
        attention = reference[f"att_{height}x{width}"].reshape(6, *grid).astype(np.float32)
        # Half a digit of float16, and what the resampled position embedding changes.
        assert np.abs(found.attention[0].numpy() - attention).max() < 5e-4 * attention.max() + 0.1 * tolerance


def test_keys_are_those_of_the_last_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit").eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    encoder = load_patch_encoder("test_vit", str(tmp_path / "vit.pth"), "float32", CPU)
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    found = encoder.encode_normalised(pixels)
    with torch.inference_mode():
        tokens = network.patch_embed(pixels)
        tokens = network.norm_pre(network._pos_embed(tokens))
        for block in network.blocks[:-1]:
            tokens = block(tokens)
        last = network.blocks[-1]
        keys = last.attn.qkv(last.norm1(tokens))[:, 1:, 64:128].unflatten(1, (10, 10))
        outputs = network.norm(last(tokens))
    assert torch.allclose(found.keys, keys, atol=1e-4)
    assert torch.allclose(found.cls, outputs[:, 0], atol=1e-4)
    assert torch.allclose(found.patches, outputs[:, 1:].unflatten(1, (10, 10)), atol=1e-4)
    assert found.attention.sum((2, 3)).max() < 1


def test_convolutional_networks_have_features_and_no_attention() -> None:
    encoder = load_patch_encoder("efficientnet-lite0", "", "float32", CPU)
    found = encoder(crops_of(2, 96))
    assert found.keys.shape == (2, 6, 6, 320) and found.attention.shape == (2, 0, 6, 6)
    assert torch.allclose(found.cls, found.patches.mean((1, 2))) and not encoder.has_attention


def test_networks_without_patches_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_maxvit").state_dict(), tmp_path / "maxvit.pth")
    with pytest.raises(InputError, match=r"could not be loaded|no plain ViT"):
        load_patch_encoder("test_maxvit", str(tmp_path / "maxvit.pth"), "float32", CPU)


def test_pixels_are_normalised_as_dino_expects(dino_files: dict[int, str]) -> None:
    encoder = load_encoder("vit_small_patch16_224.dino", dino_files[16], 64, "float32", CPU)
    crops = crops_of(2, 64)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    by_hand = encoder.embed_normalised((crops.float() / 255 - mean) / std)
    assert torch.allclose(encoder(crops), by_hand, atol=1e-5)


def test_pooled_features_equal_timms_own(mobilenet: str) -> None:
    encoder = load_encoder("mobilenetv3_small_050", mobilenet, 80, "float32", CPU)
    theirs = timm.create_model("mobilenetv3_small_050", checkpoint_path=mobilenet).eval()
    theirs.reset_classifier(0)
    statistics = timm.data.resolve_data_config({}, model=theirs)
    mean, std = (torch.tensor(statistics[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    crops = crops_of(3, 80)
    with torch.inference_mode():
        expected = theirs((crops.float() / 255 - mean) / std)
    assert encoder.dimension == expected.shape[1]
    assert torch.allclose(encoder(crops), expected, atol=1e-4 * float(expected.abs().max()))


def test_lite0_gives_1280_numbers_whatever_the_batch(lite0: Encoder) -> None:
    crops = crops_of(5, 96)
    together = lite0(crops)
    assert together.shape == (5, 1280) and together.dtype == torch.float32 and lite0.dimension == 1280
    alone = torch.cat([lite0(crop[None]) for crop in crops])
    turned = lite0(crops.flip(0)).flip(0)
    for other in (alone, turned):
        assert torch.allclose(together, other, atol=1e-4 * float(together.abs().max()))


def test_bf16_stays_near_float32(lite0: Encoder) -> None:
    crops = crops_of(4, 96)
    low = load_encoder("efficientnet-lite0", "", 96, "bf16", CPU)(crops)
    assert low.dtype == torch.float32 and not torch.equal(low, lite0(crops))
    assert functional.cosine_similarity(low, lite0(crops)).min() > 0.99


@pytest.mark.skipif(not MSRC14.is_dir(), reason="needs shared/data/msrc14")
def test_lite0_separates_classes_of_photographs() -> None:
    encoder = load_encoder("efficientnet-lite0", "", 224, "float32", CPU)
    crops, classes = [], []
    by_class: dict[str, list[str]] = {}
    for file in sorted((MSRC14 / "JPEGImages").iterdir()):
        by_class.setdefault(file.name.split("_")[0], []).append(file.name)
    for name in sorted(by_class, key=lambda c: (-len(by_class[c]), c))[:5]:
        for file in by_class[name][:6]:
            with Image.open(MSRC14 / "JPEGImages" / file) as picture:
                pixels = np.array(picture.convert("RGB").resize((224, 224)))
            crops.append(torch.from_numpy(pixels).permute(2, 0, 1))
            classes.append(name)
    rows = functional.normalize(torch.cat([encoder(torch.stack(crops[i : i + 6])) for i in range(0, len(crops), 6)]))
    similarity = (rows @ rows.T).fill_diagonal_(-2)
    nearest = [classes[i] for i in similarity.argmax(1).tolist()]
    assert np.mean([a == b for a, b in zip(nearest, classes, strict=True)]) > 0.8


@pytest.mark.parametrize(
    "name",
    ["test_vit", "fastvit_t8", "mobilevit_xxs", "xcit_nano_12_p16_224", "test_vit3", "coat_lite_tiny"],
)
def test_kinds_of_networks_take_the_crop_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    network = timm.create_model(name).eval()
    torch.save(network.state_dict(), file)
    encoder = load_encoder(name, str(file), 192, "float32", CPU)
    rows = encoder(crops_of(2, 192))
    assert rows.shape == (2, network.num_features) and rows.isfinite().all() and (rows[0] - rows[1]).abs().max() > 1e-6


def test_network_that_cannot_change_its_size_says_so(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(timm.create_model("gmlp_ti16_224").state_dict(), file)
    assert load_encoder("gmlp_ti16_224", str(file), 224, "float32", CPU).dimension == 128
    with pytest.raises(InputError, match=r"could not be loaded"):
        load_encoder("gmlp_ti16_224", str(file), 192, "float32", CPU)


def test_class_token_is_what_the_head_would_see(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit").eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    encoder = load_encoder("test_vit", str(tmp_path / "vit.pth"), 160, "float32", CPU)
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(pixels), pre_logits=True)
    assert torch.allclose(encoder.embed_normalised(pixels), expected, atol=1e-5)


def test_unknown_names_list_near_ones() -> None:
    with pytest.raises(InputError, match=r"vit_smal_patch8_224.*did you mean .*vit_small_patch8_224"):
        load_encoder("vit_smal_patch8_224", "", 224, "float32", CPU)
    with pytest.raises(InputError, match=r"'dinno'.*vit_small_patch8_224\.dino"):
        load_encoder("vit_small_patch8_224.dinno", "", 224, "float32", CPU)
    with pytest.raises(InputError, match="efficientnet-lite0"):
        load_encoder("efficientnet-lite", "", 224, "float32", CPU)


def test_files_of_other_networks_are_refused(mobilenet: str, tmp_path: Path) -> None:
    for name in ("mobilenetv3_small_075", "resnet18", "vit_tiny_patch16_224"):
        with pytest.raises(InputError, match="weights"):
            load_encoder(name, mobilenet, 64, "float32", CPU)
    with pytest.raises(InputError, match=r"missing.pth"):
        load_encoder("resnet18", str(tmp_path / "missing.pth"), 64, "float32", CPU)
