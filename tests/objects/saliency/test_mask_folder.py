"""Masks of one's own: what in a file is the mask, and which file belongs to which image."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.images.found import ImageList, UnreadableImage
from fastcomus.images.mask_files import MaskFiles
from fastcomus.images.stamps import stamp_images
from fastcomus.objects.saliency.mask_folder import MaskFolder, read_object_mask
from fastcomus.objects.saliency.methods import check_saliency

MASK = np.zeros((20, 30), np.uint8)
MASK[4:15, 6:20] = 1
FULL = np.full_like(MASK, 255)
PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
PIXELS = np.zeros((20, 30, 3), np.uint8)


def stack(*channels: np.ndarray) -> np.ndarray:
    return np.dstack(channels).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        stack(MASK * 255, FULL),  # grey and alpha
        stack(MASK * 9, FULL * 0),
        stack(MASK * 0, MASK * 200, MASK * 0, FULL // 2),
        stack(MASK * 255, MASK * 255, MASK * 255, FULL * (np.arange(30) < 25)),
        stack(PHOTO, MASK * 255),  # cut-outs, the photograph kept or wiped out below alpha
        stack(PHOTO * MASK[..., None], MASK * 255),
        stack(FULL, FULL, FULL, MASK * 255),
        stack(MASK * 250, MASK * 120, MASK * 30, MASK * 255),
        stack(PHOTO, MASK * 200 + 40),  # soft
        stack(MASK * 0, MASK * 255),  # a black shape on black
    ],
)
def test_the_mask_is_in_the_colours_or_else_in_alpha(tmp_path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_object_mask(tmp_path / "a.png"), MASK > 0)


def test_transparency_of_a_palette_is_understood_too(tmp_path: Path) -> None:
    Image.fromarray(stack(PHOTO, MASK * 255)).quantize(64).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P" and "transparency" in picture.info
    np.testing.assert_array_equal(read_object_mask(tmp_path / "a.png"), MASK > 0)
    Image.fromarray(MASK * 255).save(tmp_path / "b.png", transparency=0)
    np.testing.assert_array_equal(read_object_mask(tmp_path / "b.png"), MASK > 0)


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.maximum(PHOTO, 1), "not a mask"),
        (stack(np.maximum(PHOTO, 1), FULL), "not a mask"),
        (stack((1 - MASK) * 255, MASK * 255), "mask in doubt"),
    ],
)
def test_pictures_that_are_no_masks_are_left_out(tmp_path: Path, picture: np.ndarray, reason: str) -> None:
    Image.fromarray(picture).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage) as raised:
        read_object_mask(tmp_path / "a.png")
    assert raised.value.reason == reason


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("ending", [".png", ".PNG", "_mask.png", "-mask.png", "_mask.PNG", ".jpg.PNG", ".jpg_mask.png"])
def test_masks_are_found_by_every_usual_name(tmp_path: Path, ending: str, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    file = tmp_path / "sub" / unicodedata.normalize(form, f"café{ending}")  # type: ignore[arg-type]
    file.parent.mkdir()
    Image.fromarray(MASK).save(file, "PNG")
    Image.fromarray(1 - MASK).save(tmp_path / f"café{ending}", "PNG")  # of an image in another folder
    for name in (unicodedata.normalize(one, "sub/café.jpg") for one in (form, other)):  # type: ignore[arg-type]
        np.testing.assert_array_equal(MaskFolder(tmp_path)(name, PIXELS)[0], MASK > 0)
        before = stamp_images(ImageList(tmp_path, (name,), ()), [name], MaskFiles(tmp_path))
        os.utime(file, ns=(0, before[0][-1][1] + 10**9))
        assert stamp_images(ImageList(tmp_path, (name,), ()), [name], MaskFiles(tmp_path)) != before


def test_an_image_without_a_mask_says_so_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(MASK).save(tmp_path / "a.png")
    masks = MaskFolder(tmp_path)
    for name in ("b.jpg", "sub/a.jpg", f"{'a' * 250}.jpg", "a_mask.jpg"):
        with pytest.raises(UnreadableImage) as raised:
            masks(name, PIXELS)
        assert raised.value.reason == "no mask"
    check_saliency(EmbedConfig(masks=str(tmp_path)), ["b.jpg", "a.jpg"])
    with pytest.raises(InputError, match=r"it has a\.png .*the image b\.jpg needs b\.jpg\.png or b\.png;"):
        check_saliency(EmbedConfig(masks=str(tmp_path)), ["b.jpg", "sub/a.jpg"])
