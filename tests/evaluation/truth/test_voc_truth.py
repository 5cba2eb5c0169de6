"""PASCAL VOC, on a few small images in its own layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.read import read_truth
from fastcomus.evaluation.truth.source import parse_source
from fastcomus.evaluation.truth.truth import VOID
from fastcomus.evaluation.truth.voc import CLASSES
from fastcomus.store.masks import make_voc_palette

TRAIN, VAL = ("2007_000032", "2007_000039"), ("2007_000033", "2007_000042")
AUGMENTED = (*TRAIN, "2008_000002")


def mask_of(name: str) -> np.ndarray:
    """A class map with the labels of VOC, its void outline included; the image's own, by its number."""
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:20] = VOID
    labels[6:14, 6:19] = 1 + int(name[-3:]) % 20
    return labels


def save_palette_png(file: Path, labels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette(make_voc_palette().tobytes())
    image.save(file)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """VOCdevkit with 2012 (train, val, trainaug) and 2007 (test)."""
    splits = {"VOC2012": {"train": TRAIN, "val": VAL, "trainaug": AUGMENTED}, "VOC2007": {"test": ("000068", "000175")}}
    for year, lists in splits.items():
        root = tmp_path / "VOCdevkit" / year
        (root / "ImageSets/Segmentation").mkdir(parents=True)
        for split, names in lists.items():
            (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
            folder = "SegmentationClassAug" if split == "trainaug" else "SegmentationClass"
            for name in names:
                save_palette_png(root / folder / f"{name}.png", mask_of(name))
    return tmp_path / "VOCdevkit"


@pytest.mark.parametrize("below", ["", "VOC2012", ".."])
def test_val_from_the_kit_the_year_or_above(devkit: Path, below: str) -> None:
    names = [f"{stem}.jpg" for stem in (*TRAIN, *VAL)]
    truth = read_truth(f"voc:{devkit / below}@val", None, names)
    assert list(truth.files) == [f"{stem}.jpg" for stem in VAL]
    assert truth.classes == CLASSES and len(truth.classes) == 21
    for stem in VAL:
        np.testing.assert_array_equal(truth.read(f"{stem}.jpg"), mask_of(stem))


def test_labels_are_those_of_voc() -> None:
    assert [CLASSES.index(name) for name in ("aeroplane", "cat", "person", "tvmonitor")] == [1, 8, 15, 20]


def test_images_may_lie_in_folders_of_the_run_and_may_be_missing(devkit: Path) -> None:
    truth = read_truth(f"voc:{devkit}@train", None, ["VOC2012/JPEGImages/2007_000032.jpg", "other.jpg"])
    assert set(truth.files) == {"VOC2012/JPEGImages/2007_000032.jpg", "2007_000039.jpg"}


def test_trainaug_takes_the_augmented_masks_and_both_kinds_of_list(devkit: Path) -> None:
    names = [f"{stem}.jpg" for stem in AUGMENTED]
    plain = read_truth(f"voc:{devkit}@trainaug", None, names)
    assert {path.parent.name for path in plain.files.values()} == {"SegmentationClassAug"}
    pairs = [f"/JPEGImages/{stem}.jpg /SegmentationClassAug/{stem}.png" for stem in AUGMENTED]
    (devkit / "VOC2012/ImageSets/Segmentation/trainaug.txt").write_text("\n".join(pairs))
    assert read_truth(f"voc:{devkit}@trainaug", None, names).files == plain.files


def test_test_is_that_of_2007(devkit: Path) -> None:
    truth = read_truth(f"voc:{devkit}@test", None, ["000068.jpg", "000175.jpg"])
    assert {path.parents[1].name for path in truth.files.values()} == {"VOC2007"}


def test_a_list_stands_in_for_that_of_the_split(devkit: Path) -> None:
    listed = devkit / "list.txt"
    listed.write_text(f"{VAL[1]}\n")
    assert list(read_truth(f"voc:{devkit}@val@{listed}", None, [f"{VAL[1]}.jpg"]).files) == [f"{VAL[1]}.jpg"]
    listed.write_text(f"{VAL[1]}\n2008_000002\n2009_000001.jpg\n")  # the first of the two has an augmented mask only
    with pytest.raises(InputError, match=r"names 2 images without a mask in .*Class: 2008_000002, 2009_000001;"):
        read_truth(f"voc:{devkit}@val@{listed}", None, [f"{VAL[1]}.jpg"])


def test_a_split_that_names_absent_masks_names_all_of_them(devkit: Path) -> None:
    lost = [f"2009_{i:06d}" for i in range(25)]
    with (devkit / "VOC2012/ImageSets/Segmentation/val.txt").open("a") as stream:
        stream.write("\n".join(lost))
    with pytest.raises(InputError) as raised:
        read_truth(f"voc:{devkit}@val", None, [f"{VAL[0]}.jpg"])
    assert "names 25 images without a mask in" in str(raised.value)
    assert all(name in str(raised.value) for name in lost)


def test_own_class_names_must_be_as_many(devkit: Path) -> None:
    names = devkit / "classes.txt"
    names.write_text("\n".join(f"name {i}" for i in range(21)))
    assert read_truth(f"voc:{devkit}@val", names, [f"{VAL[0]}.jpg"]).classes[20] == "name 20"
    names.write_text("\n".join(f"name {i}" for i in range(20)))
    with pytest.raises(InputError, match="The classes file has 20 names and PASCAL VOC 21 classes"):
        read_truth(f"voc:{devkit}@val", names, [f"{VAL[0]}.jpg"])


def test_what_is_not_there(devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'vall'; it has test, train, trainaug, val"):
        read_truth(f"voc:{devkit}@vall", None, ["a.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no PASCAL VOC"):
        read_truth(f"voc:{tmp_path / 'empty'}@val", None, ["a.jpg"])
    with pytest.raises(InputError, match=r"has 2007_000033\.jpg for instance, the run a\.jpg"):
        read_truth(f"voc:{devkit}@val", None, ["a.jpg"])
    with pytest.raises(InputError, match=f"x/{VAL[0]}.jpg and y/{VAL[0]}.jpg of this run may both be"):
        read_truth(f"voc:{devkit}@val", None, [f"x/{VAL[0]}.jpg", f"y/{VAL[0]}.jpg"])
    assert parse_source(f"voc:{devkit}@vall").split == "vall"


def test_an_image_of_the_listed_name_goes_before_one_of_the_stem_alone(devkit: Path) -> None:
    names = [f"{VAL[0]}.png", f"{VAL[0]}.jpg", *(f"{name}.png" for name in VAL[1:])]
    truth = read_truth(f"voc:{devkit}@val", None, names)
    assert set(truth.files) == {f"{VAL[0]}.jpg", *(f"{name}.png" for name in VAL[1:])}
